"""Events reach PostHog in its format, once per id, and every response it can give has a clear error."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from seedtrust_ops.ports.events import EventRejected, PostHogRejected, PostHogUnavailable
from seedtrust_ops.resources.posthog_client import PostHog
from seedtrust_ops.sandbox.external_services.control_client import PostHogServer

AT = datetime(2026, 3, 3, 14, 5, tzinfo=UTC)
KEY = "phc_secret_key"


@pytest.fixture
def posthog(posthog_server: PostHogServer) -> PostHogServer:
    posthog_server.clear()
    return posthog_server


def project(server: PostHogServer, **options: Any) -> PostHog:
    # Generous for a busy machine: only the timeout test needs a short one.
    return PostHog(server.url, SecretStr(KEY), **{"timeout_seconds": 60} | options)


def test_event_is_sent_with_its_time_and_an_id_from_its_key(posthog: PostHogServer) -> None:
    body = {"event": "alert_opened", "properties": {"rule": "batch_stuck"}}
    for key in ("alert:1:opened", "alert:1:opened", "alert:2:opened"):
        project(posthog).send(key, body, AT)
    first, repeated, other = posthog.events()
    assert first["uuid"] == repeated["uuid"] != other["uuid"]
    assert (first["event"], first["timestamp"]) == ("alert_opened", AT.isoformat())
    assert first["properties"]["rule"] == "batch_stuck"
    assert first["properties"]["distinct_id"] == "seedtrust-ops"
    assert first["properties"]["$process_person_profile"] is False
    assert posthog.requests()[0]["body"]["api_key"] == KEY


def test_failure_is_sent_in_posthogs_error_tracking_format(posthog: PostHogServer) -> None:
    exception = {"type": "BankNotResponding", "message": "The bank did not respond.", "traceback": "File ..."}
    project(posthog).send("job_run_exception:1", {"exception": exception, "properties": {"severity": "HIGH"}}, AT)
    (event,) = posthog.events("$exception")
    (exception_entry,) = event["properties"]["$exception_list"]
    assert (exception_entry["type"], exception_entry["value"]) == ("BankNotResponding", "The bank did not respond.")
    assert exception_entry["mechanism"]["handled"] is True
    assert (event["properties"]["severity"], event["properties"]["traceback"]) == ("HIGH", "File ...")


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (500, PostHogUnavailable, "responded 500"),
        (503, PostHogUnavailable, "Events are retried for a day"),
        (429, PostHogUnavailable, "responded 429"),
        (401, PostHogRejected, "Check POSTHOG_API_KEY"),
        (403, PostHogRejected, "Check POSTHOG_API_KEY"),
        (400, EventRejected, "responded 400"),
        (413, EventRejected, "to this event"),
    ],
)
def test_every_response_maps_to_an_error_without_the_key(
    posthog: PostHogServer, status: int, error: type[Exception], message: str
) -> None:
    posthog.respond_with(status)
    with pytest.raises(error, match=message) as raised:
        project(posthog).send("key", {"event": "x"}, AT)
    assert KEY not in str(raised.value)


def test_silent_server_ends_at_the_timeout(posthog: PostHogServer) -> None:
    posthog.respond_with(seconds=5)
    with pytest.raises(PostHogUnavailable, match="did not respond: it timed out"):
        project(posthog, timeout_seconds=0.2).send("key", {"event": "x"}, AT)


@pytest.mark.parametrize(
    "body", [{}, {"properties": {}}, {"exception": {"type": "X"}}, {"exception": None}, {"event": "x", "properties": 3}]
)
def test_invalid_event_is_rejected_before_sending(body: dict[str, Any]) -> None:
    unreachable = PostHog("http://127.0.0.1:1", SecretStr(KEY))
    with pytest.raises(EventRejected, match="The row queued for PostHog is not a valid event"):
        unreachable.send("key", body, AT)
