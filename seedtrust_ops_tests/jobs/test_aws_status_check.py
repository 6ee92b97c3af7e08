"""The status check against real servers: what it detects, what it posts, and when the run itself fails."""

import threading
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from seedtrust_ops.definitions import defs
from seedtrust_ops.domain import component_checks
from seedtrust_ops.sandbox.stack import ExternalServices
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company

pytestmark = pytest.mark.usefixtures("jobs_environment")


def run() -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def("aws_status_check").execute_in_process(raise_on_error=False)


def failure_text(result: dg.ExecuteInProcessResult) -> str:
    events = [event for event in result.all_events if event.is_step_failure or event.is_step_up_for_retry]
    return str(events[0].event_specific_data)


def posted(external_services: ExternalServices) -> dict[str, str]:
    return {post["component"]: post["status"] for post in external_services.internal_api.posted_statuses()}


def test_both_components_are_up_and_posted_in_the_documented_format(external_services: ExternalServices) -> None:
    result = run()
    assert result.success
    assert result.output_for_node("aws_status_check") == {"s3": "up", "cloudfront": "up"}
    posts = external_services.internal_api.posted_statuses()
    assert [post["component"] for post in posts] == ["s3", "cloudfront"]
    for post in posts:
        assert isinstance(post["latency_ms"], int)
        assert datetime.now(UTC) - datetime.fromisoformat(post["checked_at"]) < timedelta(minutes=1)
    (request, _) = external_services.internal_api.requests()
    assert (request["path"], request["headers"]["x-internal-api-key"]) == ("/status", "internal-key-1")
    assert external_services.storage.keys() == []


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_page_error_status_is_posted_as_down_and_the_run_succeeds(
    external_services: ExternalServices, status: int
) -> None:
    external_services.cloudfront.respond_with(status)
    assert run().success
    assert posted(external_services) == {"s3": "up", "cloudfront": "down"}
    post = external_services.internal_api.posted_statuses()[1]
    assert post["latency_ms"] is None
    assert f"responded {status}" in post["detail"]


def test_component_that_is_down_notifies_people_until_it_is_up(
    external_services: ExternalServices, company: Company
) -> None:
    external_services.cloudfront.respond_with(503)
    assert run().success
    assert company.open_alerts() == [("component_down", "cloudfront")]
    external_services.cloudfront.respond_with(200)
    assert run().success
    assert company.open_alerts() == []


def test_missing_bucket_is_posted_as_down_and_the_run_succeeds(
    external_services: ExternalServices, set_variables: SetVariables
) -> None:
    set_variables(REPORTS_BUCKET="no-such-bucket")
    assert run().success
    assert posted(external_services) == {"s3": "down", "cloudfront": "up"}
    assert "There is no S3 bucket no-such-bucket" in external_services.internal_api.posted_statuses()[0]["detail"]


def test_unreachable_storage_and_page_are_posted_as_down(
    external_services: ExternalServices, set_variables: SetVariables
) -> None:
    set_variables(AWS_ENDPOINT_URL="http://127.0.0.1:9", CLOUDFRONT_URL="http://127.0.0.1:9/")
    assert run().success
    assert posted(external_services) == {"s3": "down", "cloudfront": "down"}


def test_slow_component_is_posted_as_degraded(
    external_services: ExternalServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(component_checks, "SLOW_MS", 150)
    external_services.cloudfront.respond_with(seconds=0.2)
    assert run().success
    post = external_services.internal_api.posted_statuses()[1]
    assert (post["status"], post["latency_ms"] >= 200) == ("degraded", True)


@pytest.mark.parametrize(
    ("status", "message", "attempts"), [(401, "Check INTERNAL_API_KEY", 1), (422, "Check INTERNAL_API_URL", 1)]
)
def test_rejected_post_fails_the_run_without_a_retry(
    external_services: ExternalServices, status: int, message: str, attempts: int
) -> None:
    external_services.internal_api.respond_with(status)
    result = run()
    assert not result.success
    assert message in failure_text(result)
    assert "internal-key-1" not in failure_text(result)
    assert len(external_services.internal_api.requests()) == 2 * attempts


def test_transient_post_failure_is_retried(external_services: ExternalServices) -> None:
    external_services.internal_api.respond_with(503)
    recovery = threading.Timer(1, external_services.internal_api.respond_with)
    recovery.start()
    result = run()
    recovery.join()
    assert result.success
    assert posted(external_services) == {"s3": "up", "cloudfront": "up"}


@pytest.mark.parametrize("variable", ["REPORTS_BUCKET", "CLOUDFRONT_URL", "INTERNAL_API_URL", "INTERNAL_API_KEY"])
def test_missing_variable_is_named_before_anything_is_posted(
    external_services: ExternalServices, set_variables: SetVariables, variable: str
) -> None:
    set_variables(**{variable: None})
    result = run()
    assert not result.success
    assert f"{variable} is not set. It is " in failure_text(result)
    assert external_services.internal_api.requests() == []


def test_concurrent_checks_do_not_interfere(external_services: ExternalServices) -> None:
    results: list[dg.ExecuteInProcessResult] = []
    threads = [threading.Thread(target=lambda: results.append(run())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.success for result in results] == [True, True]
    assert [post["status"] for post in external_services.internal_api.posted_statuses()] == ["up"] * 4
    assert external_services.storage.keys() == []
