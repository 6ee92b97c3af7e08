"""The watchdog's evaluator: one cause is one incident, and no incident opens before its threshold."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from seedtrust_ops.config.alert_thresholds import WatchdogSettings
from seedtrust_ops.dagster_db.daemon_activity import DAEMON_TYPES, AutomationKind, AutomationTicks
from seedtrust_ops.watchdog.evaluator import ProbeHistory, ProbeVerdict, evaluate
from seedtrust_ops.watchdog.probes import DagsterFacts, ProbeResult

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=1)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def heartbeats(seconds: float = 10, **by_daemon: float) -> dict[str, datetime]:
    """The last heartbeat of every daemon type, by its age in seconds."""
    return {daemon: ago(by_daemon.get(daemon, seconds)) for daemon in DAEMON_TYPES}


def sensor_ticks(
    name: str = "some_sensor", *, silent: float | None = -10, status: str | None = "SKIPPED"
) -> AutomationTicks:
    """A sensor that has been silent for `silent` seconds; negative: not yet silent; None: switched off."""
    return AutomationTicks(
        name=name,
        kind=AutomationKind.SENSOR,
        is_on=silent is not None,
        on_since=LONG_AGO,
        interval_seconds=5,
        last_tick_at=ago(5),
        last_tick_status=status,
        last_good_at=ago(70 + (silent or 0)),
        due_at=None if silent is None else ago(silent + 65),
        silent_at=None if silent is None else ago(silent),
    )


def probe_result(
    beats: dict[str, datetime] | None = None,
    ticks: tuple[AutomationTicks, ...] = (),
    *,
    application: str | None = None,
    dagster: str | None = None,
) -> ProbeResult:
    facts = None if dagster else DagsterFacts(heartbeats() if beats is None else beats, ticks)
    return ProbeResult(NOW, application, dagster, facts)


def verdict(result: ProbeResult, **history: Any) -> ProbeVerdict:
    return evaluate(result, ProbeHistory(**{"watching_since": LONG_AGO} | history), WatchdogSettings())


@pytest.mark.parametrize(
    ("result", "history", "expected"),
    [
        pytest.param(probe_result(), {}, set(), id="all healthy"),
        pytest.param(probe_result(heartbeats(119)), {}, set(), id="heartbeats late, below the threshold"),
        pytest.param(probe_result(heartbeats(120)), {}, {"daemon_silent daemon"}, id="no heartbeats"),
        pytest.param(probe_result(heartbeats(SENSOR=179)), {}, set(), id="one daemon late, as the scheduler may be"),
        pytest.param(probe_result(heartbeats(SENSOR=180)), {}, {"daemon_silent daemon"}, id="one daemon hangs"),
        pytest.param(probe_result({}), {}, {"daemon_silent daemon"}, id="no daemon ever ran"),
        pytest.param(probe_result({}), {"watching_since": ago(119)}, set(), id="the first daemon may be starting"),
        pytest.param(probe_result(ticks=(sensor_ticks(silent=-1),)), {}, set(), id="tick late, below the threshold"),
        pytest.param(
            probe_result(ticks=(sensor_ticks(silent=0),)), {}, {"ticks_stopped some_sensor"}, id="ticks stopped"
        ),
        pytest.param(
            probe_result(ticks=(sensor_ticks(silent=None),)), {}, set(), id="switched-off sensor need not tick"
        ),
        pytest.param(
            probe_result(heartbeats(130), (sensor_ticks(silent=60),)),
            {},
            {"daemon_silent daemon"},
            id="silent daemon explains missing ticks",
        ),
        pytest.param(
            probe_result(heartbeats(50), (sensor_ticks(silent=9),)),
            {},
            set(),
            id="late heartbeats may explain missing ticks",
        ),
        pytest.param(
            probe_result(ticks=(sensor_ticks(silent=500),)),
            {"recovered_at": ago(119)},
            set(),
            id="after recovery, ticks get a minute and the grace period",
        ),
        pytest.param(
            probe_result(ticks=(sensor_ticks(silent=500),)),
            {"recovered_at": ago(120)},
            {"ticks_stopped some_sensor"},
            id="no tick after recovery",
        ),
        pytest.param(
            probe_result(heartbeats(900)),
            {"unreachable_since": {"dagster": ago(800)}},
            set(),
            id="no heartbeats during a database outage",
        ),
        pytest.param(
            probe_result(heartbeats(900)),
            {"recovered_at": ago(120)},
            {"daemon_silent daemon"},
            id="no heartbeats since the outage ended",
        ),
        pytest.param(probe_result(dagster="It is down."), {}, set(), id="database down for one probe"),
        pytest.param(
            probe_result(dagster="It is down."),
            {"unreachable_since": {"dagster": ago(30)}},
            {"database_down dagster"},
            id="one database down",
        ),
        pytest.param(
            probe_result(application="It is down.", dagster="It is down."),
            {"unreachable_since": {"dagster": ago(31), "application": ago(31)}},
            {"database_down dagster", "database_down application"},
            id="both databases down",
        ),
        pytest.param(
            probe_result(ticks=(sensor_ticks(silent=99, status="FAILURE"),), application="It is down."),
            {"unreachable_since": {"application": ago(31)}},
            {"database_down application"},
            id="ticks fail while the application database is down",
        ),
    ],
)
def test_probe_opens_incidents_only_past_their_thresholds(
    result: ProbeResult, history: dict[str, Any], expected: set[str]
) -> None:
    assert {" ".join(incident.key) for incident in verdict(result, **history).incidents} == expected


@pytest.mark.parametrize(
    ("result", "unknown_rules"),
    [
        (probe_result(), set()),
        (probe_result(dagster="It is down."), {"daemon_silent", "ticks_stopped"}),
        (probe_result(application="It is down."), {"ticks_stopped"}),
        (probe_result(heartbeats(130)), {"ticks_stopped"}),
        (probe_result(heartbeats(50)), {"ticks_stopped"}),
    ],
)
def test_unverifiable_incidents_are_not_resolved(result: ProbeResult, unknown_rules: set[str]) -> None:
    assert verdict(result).unknown_rules == unknown_rules


def test_recovery_starts_at_the_first_fully_healthy_probe() -> None:
    down = verdict(probe_result(dagster="It is down."), unreachable_since={"dagster": ago(300)})
    assert down.history.unreachable_since == {"dagster": ago(300)}
    assert evaluate(probe_result(), down.history, WatchdogSettings()).history.recovered_at == NOW
    late = verdict(probe_result(heartbeats(50)))
    assert late.history.recovered_at is None
    assert evaluate(probe_result(), late.history, WatchdogSettings()).history.recovered_at == NOW
    assert verdict(probe_result(), recovered_at=ago(7)).history.recovered_at == ago(7)


def test_incident_details_say_what_since_when_and_what_to_do() -> None:
    (silent,) = verdict(probe_result(heartbeats(130))).incidents
    assert silent.severity == "CRITICAL"
    assert "no heartbeat since 2026-07-01 11:57:50 UTC" in silent.detail
    assert "seedtrust-ops worker" in silent.detail
    (hangs,) = verdict(probe_result(heartbeats(SCHEDULER=300))).incidents
    assert "there is no heartbeat from SCHEDULER" in hangs.detail
    (stopped,) = verdict(probe_result(ticks=(sensor_ticks(silent=60, status="STARTED"),))).incidents
    assert stopped.severity == "HIGH"
    assert (
        "since 2026-07-01 11:57:50 UTC; it should tick every 5 seconds, and its last tick is STARTED" in stopped.detail
    )
    (down,) = verdict(probe_result(dagster="It refused."), unreachable_since={"dagster": ago(60)}).incidents
    assert down.detail.startswith("It refused. Unreachable since 11:59:00 UTC.")
