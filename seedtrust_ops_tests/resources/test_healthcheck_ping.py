"""The health check ping: one request to the right URL, and no error whatever the monitor does."""

import pytest

from seedtrust_ops.orchestration.dagster_resources import HeartbeatResource
from seedtrust_ops.resources import healthcheck_ping
from seedtrust_ops.sandbox.external_services.control_client import PostHogServer, RecordingServer
from seedtrust_ops_tests.support.environment import SetVariables


@pytest.fixture
def monitor(posthog_server: PostHogServer, monkeypatch: pytest.MonkeyPatch) -> RecordingServer:
    """Any server that records its requests will do."""
    posthog_server.clear()
    # Generous for a busy machine: only one test is about a slow monitor.
    monkeypatch.setattr(healthcheck_ping, "TIMEOUT_SECONDS", 60)
    return posthog_server


def ping(server: RecordingServer, *, alerts_delivered: bool = True, summary: str = "") -> str | None:
    return healthcheck_ping.ping(f"{server.url}/ping/our-secret", alerts_delivered=alerts_delivered, summary=summary)


def test_ping_reports_success_with_its_summary(monitor: RecordingServer) -> None:
    assert ping(monitor, summary='"all is well"') is None
    (request,) = monitor.requests()
    assert (request["method"], request["path"], request["body"]) == ("POST", "/ping/our-secret", "all is well")


def test_ping_reports_failure_if_nobody_could_be_notified(monitor: RecordingServer) -> None:
    assert ping(monitor, alerts_delivered=False) is None
    assert [request["path"] for request in monitor.requests()] == ["/ping/our-secret/fail"]


def test_long_summary_is_truncated(monitor: RecordingServer) -> None:
    assert ping(monitor, summary="é" * healthcheck_ping.MAX_BODY_BYTES) is None
    assert int(monitor.requests()[0]["headers"]["content-length"]) == healthcheck_ping.MAX_BODY_BYTES


def test_rejected_ping_is_not_retried_and_hides_the_url(monitor: RecordingServer) -> None:
    monitor.respond_with(503)
    error = ping(monitor)
    assert error is not None
    assert "503" in error
    assert "our-secret" not in error
    assert len(monitor.requests()) == 1


def test_slow_or_unreachable_monitor_does_not_delay_the_caller(
    monitor: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(healthcheck_ping, "TIMEOUT_SECONDS", 0.2)
    monitor.respond_with(seconds=5)
    assert "Timeout" in str(ping(monitor))
    error = healthcheck_ping.ping("http://127.0.0.1:1/our-secret", alerts_delivered=True)
    assert "ConnectError" in str(error)
    assert "our-secret" not in str(error)


def test_configured_url_gets_the_ping(monitor: RecordingServer, set_variables: SetVariables) -> None:
    set_variables(HEARTBEAT_URL=f"{monitor.url}/ping/our-secret/")
    assert HeartbeatResource().ping(alerts_delivered=True) is None
    assert [request["path"] for request in monitor.requests()] == ["/ping/our-secret"]


def test_missing_url_sends_no_ping(set_variables: SetVariables) -> None:
    set_variables(HEARTBEAT_URL=None)
    assert HeartbeatResource().ping(alerts_delivered=False) is None
