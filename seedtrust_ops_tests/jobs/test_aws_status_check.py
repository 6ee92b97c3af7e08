"""The status check against real servers: what it finds, what it posts, and when the run itself fails."""

import threading
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from seedtrust_ops.config import get_settings
from seedtrust_ops.definitions import defs
from seedtrust_ops.domain import component_checks
from seedtrust_ops.sandbox.external_services.server_group import OutsideWorld

pytestmark = pytest.mark.usefixtures("jobs_environment")


def run() -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def("aws_status_check").execute_in_process(raise_on_error=False)


def why_failed(result: dg.ExecuteInProcessResult) -> str:
    events = [event for event in result.all_events if event.is_step_failure or event.is_step_up_for_retry]
    return str(events[0].event_specific_data)


def told(outside: OutsideWorld) -> dict[str, str]:
    return {post["component"]: post["status"] for post in outside.internal_api.posts()}


def test_both_are_up_and_told_to_the_letter(outside: OutsideWorld) -> None:
    result = run()
    assert result.success
    assert result.output_for_node("aws_status_check") == {"s3": "up", "cloudfront": "up"}
    posts = outside.internal_api.posts()
    assert [post["component"] for post in posts] == ["s3", "cloudfront"]
    for post in posts:
        assert isinstance(post["latency_ms"], int)
        assert datetime.now(UTC) - datetime.fromisoformat(post["checked_at"]) < timedelta(minutes=1)
    (kept, _) = outside.internal_api.kept()
    assert (kept["path"], kept["headers"]["x-internal-api-key"]) == ("/status", "internal-key-1")
    assert outside.storage.keys() == []


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_a_page_that_comes_with_an_error_is_down_and_the_run_succeeds(outside: OutsideWorld, status: int) -> None:
    outside.cloudfront.answer_with(status)
    assert run().success
    assert told(outside) == {"s3": "up", "cloudfront": "down"}
    post = outside.internal_api.posts()[1]
    assert post["latency_ms"] is None
    assert f"answered {status}" in post["detail"]


def test_a_bucket_that_is_not_there_is_down_and_the_run_succeeds(
    outside: OutsideWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPORTS_BUCKET", "no-such-bucket")
    get_settings.cache_clear()
    assert run().success
    assert told(outside) == {"s3": "down", "cloudfront": "up"}
    assert "There is no S3 bucket no-such-bucket" in outside.internal_api.posts()[0]["detail"]


def test_storage_and_page_that_nobody_answers_at_are_down(
    outside: OutsideWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("CLOUDFRONT_URL", "http://127.0.0.1:9/")
    get_settings.cache_clear()
    assert run().success
    assert told(outside) == {"s3": "down", "cloudfront": "down"}


def test_what_is_slow_is_degraded(outside: OutsideWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(component_checks, "SLOW_MS", 150)
    outside.cloudfront.answer_with(seconds=0.2)
    assert run().success
    post = outside.internal_api.posts()[1]
    assert (post["status"], post["latency_ms"] >= 200) == ("degraded", True)


@pytest.mark.parametrize(
    ("status", "sentence", "tries"), [(401, "check INTERNAL_API_KEY", 1), (422, "check INTERNAL_API_URL", 1)]
)
def test_a_post_that_is_refused_fails_the_run_without_a_retry(
    outside: OutsideWorld, status: int, sentence: str, tries: int
) -> None:
    outside.internal_api.answer_with(status)
    result = run()
    assert not result.success
    assert sentence in why_failed(result)
    assert "internal-key-1" not in why_failed(result)
    assert len(outside.internal_api.kept()) == 2 * tries


def test_a_post_that_fails_for_a_moment_is_retried(outside: OutsideWorld) -> None:
    outside.internal_api.answer_with(503)
    healer = threading.Timer(1, outside.internal_api.answer_with)
    healer.start()
    result = run()
    healer.join()
    assert result.success
    assert told(outside) == {"s3": "up", "cloudfront": "up"}


@pytest.mark.parametrize("variable", ["REPORTS_BUCKET", "CLOUDFRONT_URL", "INTERNAL_API_URL", "INTERNAL_API_KEY"])
def test_a_missing_variable_stops_the_job_by_name_before_anything_is_told(
    outside: OutsideWorld, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv(variable)
    get_settings.cache_clear()
    result = run()
    assert not result.success
    assert f"{variable} is not set. It is " in why_failed(result)
    assert outside.internal_api.kept() == []


def test_two_checks_at_once_do_not_disturb_each_other(outside: OutsideWorld) -> None:
    results: list[dg.ExecuteInProcessResult] = []
    threads = [threading.Thread(target=lambda: results.append(run())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.success for result in results] == [True, True]
    assert [post["status"] for post in outside.internal_api.posts()] == ["up"] * 4
    assert outside.storage.keys() == []
