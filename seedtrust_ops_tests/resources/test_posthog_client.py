"""PostHog is told in its own words, once under one id, and every way in which it can answer has a sentence."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from seedtrust_ops.ports.events import EventRefused, PostHogRefused, PostHogUnreachable
from seedtrust_ops.resources.posthog_client import PostHog
from seedtrust_ops.sandbox.external_services.control_client import PostHogServer, start_posthog

AT = datetime(2026, 3, 3, 14, 5, tzinfo=UTC)
KEY = "phc_secret_key"


@pytest.fixture(scope="module")
def posthog_server() -> Iterator[PostHogServer]:
    with start_posthog() as server:
        yield server


@pytest.fixture
def posthog(posthog_server: PostHogServer) -> PostHogServer:
    posthog_server.clear()
    return posthog_server


def project(server: PostHogServer, **options: Any) -> PostHog:
    # However busy the machine is: only the test of a time-out is about answers that come late.
    return PostHog(server.url, SecretStr(KEY), **{"timeout_seconds": 60} | options)


def test_event_is_told_with_its_time_and_an_id_that_follows_from_its_key(posthog: PostHogServer) -> None:
    body = {"event": "alert_opened", "properties": {"rule": "batch_stuck"}}
    for key in ("alert:1:opened", "alert:1:opened", "alert:2:opened"):
        project(posthog).take(key, body, AT)
    first, again, other = posthog.events()
    assert first["uuid"] == again["uuid"] != other["uuid"]
    assert (first["event"], first["timestamp"]) == ("alert_opened", AT.isoformat())
    assert first["properties"]["rule"] == "batch_stuck"
    assert first["properties"]["distinct_id"] == "seedtrust-ops"
    assert first["properties"]["$process_person_profile"] is False
    assert posthog.kept()[0]["body"]["api_key"] == KEY


def test_failure_is_told_as_posthog_s_error_tracking_wants_it(posthog: PostHogServer) -> None:
    exception = {"type": "BankNotResponding", "message": "The bank said nothing.", "traceback": "File ..."}
    project(posthog).take("job_run_exception:1", {"exception": exception, "properties": {"severity": "HIGH"}}, AT)
    (told,) = posthog.events("$exception")
    (listed,) = told["properties"]["$exception_list"]
    assert (listed["type"], listed["value"]) == ("BankNotResponding", "The bank said nothing.")
    assert listed["mechanism"]["handled"] is True
    assert (told["properties"]["severity"], told["properties"]["traceback"]) == ("HIGH", "File ...")


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (500, PostHogUnreachable, "answered 500"),
        (503, PostHogUnreachable, "events wait for up to a day"),
        (429, PostHogUnreachable, "answered 429"),
        (401, PostHogRefused, "check POSTHOG_API_KEY"),
        (403, PostHogRefused, "check POSTHOG_API_KEY"),
        (400, EventRefused, "answered 400"),
        (413, EventRefused, "to this event"),
    ],
)
def test_every_answer_has_its_word_and_none_shows_the_key(
    posthog: PostHogServer, status: int, error: type[Exception], words: str
) -> None:
    posthog.answer_with(status)
    with pytest.raises(error, match=words) as raised:
        project(posthog).take("key", {"event": "x"}, AT)
    assert KEY not in str(raised.value)


def test_silence_ends_after_the_timeout(posthog: PostHogServer) -> None:
    posthog.answer_with(seconds=5)
    with pytest.raises(PostHogUnreachable, match="did not answer: it timed out"):
        project(posthog, timeout_seconds=0.2).take("key", {"event": "x"}, AT)


@pytest.mark.parametrize(
    "body", [{}, {"properties": {}}, {"exception": {"type": "X"}}, {"exception": None}, {"event": "x", "properties": 3}]
)
def test_body_that_is_no_event_is_refused_before_it_leaves(body: dict[str, Any]) -> None:
    nobody = PostHog("http://127.0.0.1:1", SecretStr(KEY))
    with pytest.raises(EventRefused, match="What was queued for PostHog is no event"):
        nobody.take("key", body, AT)
