"""What counts as healthy, degraded and down, in one table of status reports; the exit code is the level."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from seedtrust_ops.status.health import Health, Level, evaluate_health
from seedtrust_ops.status.models import Backlog, DagsterStatus, JobStatus, OpenAlert, StatusReport, Unnotified, Workload

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
EMPTY_BACKLOG = Backlog(0, None, 0)
NOTIFIED = Unnotified()


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def job(
    automation: str = "huntington_batch_sensor", *, silent: float | None = -10, state: str = "RUNNING"
) -> JobStatus:
    """A job whose schedule or sensor has been silent for `silent` seconds; negative: not yet silent."""
    return JobStatus(
        name="some_job",
        severity="CRITICAL",
        automation=automation,
        state=state,
        last_run_id=None,
        last_run_status=None,
        last_run_at=None,
        last_run_seconds=None,
        last_tick_at=ago(100),
        last_tick_status="STARTED",
        next_tick_at=ago(5),
        silent_at=ago(silent) if silent is not None else None,
    )


def alert(rule: str = "batch_stuck", severity: str = "HIGH", *, is_acknowledged: bool = False) -> OpenAlert:
    return OpenAlert(7, severity, rule, "some batch", ago(60), "It is stuck.", "maria" if is_acknowledged else None)


def heartbeats_aged(seconds: float = 10, **by_daemon: float) -> dict[str, datetime]:
    return {daemon: ago(by_daemon.get(daemon, seconds)) for daemon in ("SENSOR", "SCHEDULER", "MONITORING")}


def status_report(
    *jobs: JobStatus,
    heartbeats: dict[str, datetime] | None = None,
    alerts: tuple[OpenAlert, ...] = (),
    halted: str | None = None,
    unnotified: Unnotified = NOTIFIED,
    **errors: Any,
) -> StatusReport:
    dagster = DagsterStatus(heartbeats_aged() if heartbeats is None else heartbeats, list(jobs), [], [])
    workload = Workload(
        halted,
        {},
        [],
        {},
        0,
        None,
        ago(60),
        EMPTY_BACKLOG,
        EMPTY_BACKLOG,
        EMPTY_BACKLOG,
        0,
        list(alerts),
        len(alerts),
        unnotified,
    )
    report = StatusReport(NOW, None, None, dagster, workload)
    if "application_error" in errors:
        report = replace(report, workload=None)
    if "dagster_error" in errors:
        report = replace(report, dagster=None)
    return replace(report, **errors)


def evaluate(report: StatusReport, *, dev_env: bool = False) -> Health:
    return evaluate_health(report, heartbeat_seconds=120, dev_env=dev_env)


@pytest.mark.parametrize(
    ("report", "level", "message"),
    [
        pytest.param(status_report(job(), job("some_schedule", silent=None)), Level.HEALTHY, None, id="all healthy"),
        pytest.param(
            status_report(application_error="It is down."), Level.DOWN, "It is down.", id="no application database"
        ),
        pytest.param(status_report(dagster_error="It is down."), Level.DOWN, "It is down.", id="no Dagster database"),
        pytest.param(status_report(heartbeats={}), Level.DOWN, "never run", id="no daemon ever ran"),
        pytest.param(
            status_report(heartbeats=heartbeats_aged(39)),
            Level.DEGRADED,
            "silent for 39 seconds",
            id="39 s after a kill",
        ),
        pytest.param(
            status_report(heartbeats=heartbeats_aged(119)),
            Level.DEGRADED,
            "silent for 119 seconds",
            id="heartbeats late, below the threshold",
        ),
        pytest.param(
            status_report(heartbeats=heartbeats_aged(34)), Level.HEALTHY, None, id="heartbeats as late as they may be"
        ),
        pytest.param(
            status_report(unnotified=Unnotified(2, ago(1), "The mail server refuses.")),
            Level.DOWN,
            "Nobody can be notified of 2 urgent alerts: The mail server refuses.",
            id="nobody can be notified",
        ),
        pytest.param(
            status_report(unnotified=Unnotified(1, ago(61))),
            Level.DOWN,
            "Nobody has been notified of 1 urgent alert, open for up to 61 seconds",
            id="nobody was notified in time",
        ),
        pytest.param(
            status_report(unnotified=Unnotified(1, ago(20))), Level.HEALTHY, None, id="to be notified by the next tick"
        ),
        pytest.param(
            status_report(unnotified=Unnotified(0, None, "The mail server refuses.")),
            Level.HEALTHY,
            None,
            id="emails fail after everybody was notified; that has an alert of its own",
        ),
        pytest.param(
            status_report(heartbeats=heartbeats_aged(120)), Level.DOWN, "no heartbeat since", id="daemon silent"
        ),
        pytest.param(
            status_report(heartbeats=heartbeats_aged(SENSOR=180)),
            Level.DOWN,
            "heartbeat from SENSOR",
            id="one daemon hangs",
        ),
        pytest.param(status_report(halted="Transfers are halted."), Level.DOWN, "Transfers are halted.", id="halted"),
        pytest.param(status_report(job(silent=0)), Level.DOWN, "Transfers cannot be sent", id="batch sensor silent"),
        pytest.param(status_report(job(silent=-1)), Level.HEALTHY, None, id="batch sensor late, below the threshold"),
        pytest.param(
            status_report(job(state="STOPPED", silent=None)), Level.DOWN, "switched off", id="batch sensor off"
        ),
        pytest.param(
            status_report(job("x_schedule", silent=9)), Level.DEGRADED, "x_schedule has stopped", id="ticks stopped"
        ),
        pytest.param(status_report(job("x_schedule", state="STOPPED")), Level.HEALTHY, None, id="another schedule off"),
        pytest.param(status_report(alerts=(alert(),)), Level.DEGRADED, "HIGH alert 7", id="HIGH alert"),
        pytest.param(
            status_report(alerts=(alert(severity="CRITICAL"),)), Level.DEGRADED, "CRITICAL", id="CRITICAL alert"
        ),
        pytest.param(status_report(alerts=(alert(severity="MEDIUM"),)), Level.HEALTHY, None, id="MEDIUM alert"),
        pytest.param(
            status_report(alerts=(alert(is_acknowledged=True),)), Level.HEALTHY, None, id="acknowledged alert"
        ),
        pytest.param(
            status_report(alerts=(alert("daemon_silent"),)), Level.HEALTHY, None, id="watchdog alert not resolved yet"
        ),
        pytest.param(
            status_report(alerts=(alert("bank_unauthorized", is_acknowledged=True),)),
            Level.DOWN,
            "Transfers cannot be sent",
            id="bank rejects us, even if acknowledged",
        ),
    ],
)
def test_health_level_matches_the_status_report(report: StatusReport, level: Level, message: str | None) -> None:
    health = evaluate(report)
    assert health.level is level
    assert [reason for reason in health.reasons if message is None or message in reason.message] == health.reasons
    assert bool(health.reasons) == (level is not Level.HEALTHY)


def test_worst_reason_comes_first_and_sets_the_level() -> None:
    health = evaluate(status_report(job("x_schedule", silent=9), alerts=(alert(),), halted="Transfers are halted."))
    assert health.level is Level.DOWN
    assert [reason.level for reason in health.reasons] == [Level.DOWN, Level.DEGRADED, Level.DEGRADED]


def test_silent_daemon_is_one_reason() -> None:
    health = evaluate(status_report(job(silent=9), job("x_schedule", silent=9), heartbeats=heartbeats_aged(300)))
    assert len(health.reasons) == 1


def test_same_error_of_both_databases_is_one_reason() -> None:
    assert len(evaluate(status_report(application_error="No server.", dagster_error="No server.")).reasons) == 1


def test_batch_sensor_may_be_off_on_a_developer_machine() -> None:
    assert evaluate(status_report(job(state="STOPPED", silent=None)), dev_env=True).level is Level.HEALTHY
