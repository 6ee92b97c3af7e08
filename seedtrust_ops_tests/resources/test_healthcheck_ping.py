"""The heartbeat: one ping where it should go, and no trouble whatever becomes of it."""

from collections.abc import Iterator

import pytest

from seedtrust_ops.config import get_settings
from seedtrust_ops.orchestration.dagster_resources import HeartbeatResource
from seedtrust_ops.resources import healthcheck_ping
from seedtrust_ops.sandbox.external_services.control_client import KeepingServer, start_posthog


@pytest.fixture(scope="module")
def monitor_server() -> Iterator[KeepingServer]:
    # Any server that keeps what it is posted will do.
    with start_posthog() as server:
        yield server


@pytest.fixture
def monitor(monitor_server: KeepingServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeepingServer]:
    monitor_server.clear()
    # However busy the machine is: one test alone is about a monitor that is slow.
    monkeypatch.setattr(healthcheck_ping, "TIMEOUT_SECONDS", 60)
    monkeypatch.setenv("HEARTBEAT_URL", f"{monitor_server.url}/ping/our-secret/")
    get_settings.cache_clear()
    yield monitor_server
    get_settings.cache_clear()


def test_ping_says_that_all_is_well_and_brings_its_words(monitor: KeepingServer) -> None:
    assert HeartbeatResource().ping(telling_works=True, words='"all is well"') is None
    (kept,) = monitor.kept()
    assert (kept["method"], kept["path"], kept["body"]) == ("POST", "/ping/our-secret", "all is well")


def test_ping_says_fail_where_nobody_could_be_told(monitor: KeepingServer) -> None:
    assert HeartbeatResource().ping(telling_works=False) is None
    assert [kept["path"] for kept in monitor.kept()] == ["/ping/our-secret/fail"]


def test_long_words_are_cut(monitor: KeepingServer) -> None:
    assert HeartbeatResource().ping(telling_works=True, words="é" * healthcheck_ping.WORDS_SENT) is None
    assert int(monitor.kept()[0]["headers"]["content-length"]) == healthcheck_ping.WORDS_SENT


def test_monitor_that_refuses_is_tried_once_and_its_address_is_not_shown(monitor: KeepingServer) -> None:
    monitor.answer_with(503)
    said = HeartbeatResource().ping(telling_works=True)
    assert said is not None
    assert "503" in said
    assert "our-secret" not in said
    assert len(monitor.kept()) == 1


def test_monitor_that_is_slow_or_gone_holds_nobody_up(monitor: KeepingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healthcheck_ping, "TIMEOUT_SECONDS", 0.2)
    monitor.answer_with(seconds=5)
    assert "Timeout" in str(HeartbeatResource().ping(telling_works=True))
    monkeypatch.setenv("HEARTBEAT_URL", "http://127.0.0.1:1/our-secret")
    get_settings.cache_clear()
    said = HeartbeatResource().ping(telling_works=True)
    assert "ConnectError" in str(said)
    assert "our-secret" not in str(said)


def test_without_an_address_nothing_is_pinged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEARTBEAT_URL", raising=False)
    get_settings.cache_clear()
    assert HeartbeatResource().ping(telling_works=False) is None
    get_settings.cache_clear()
