"""What counts as well, degraded and down, over one table of what can be found; the exit code follows."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from seedtrust_ops.status.health import Health, Level, judge_health
from seedtrust_ops.status.models import AlertStanding, DagsterStanding, JobStanding, StatusReport, Waiting, WorkStanding

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
NOTHING = Waiting(0, None, 0)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def job(
    automation: str = "huntington_batch_sensor", *, silent: float | None = -10, state: str = "RUNNING"
) -> JobStanding:
    """A job whose automation has been silent for so many seconds; below 0: will be."""
    return JobStanding(
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


def alert(rule: str = "batch_stuck", severity: str = "HIGH", *, seen_to: bool = False) -> AlertStanding:
    return AlertStanding(7, severity, rule, "some batch", ago(60), "It is stuck.", "maria" if seen_to else None)


def beats(seconds: float = 10, **parts: float) -> dict[str, datetime]:
    return {part: ago(parts.get(part, seconds)) for part in ("SENSOR", "SCHEDULER", "MONITORING")}


def stood(
    *jobs: JobStanding,
    heartbeats: dict[str, datetime] | None = None,
    alerts: tuple[AlertStanding, ...] = (),
    halted: str | None = None,
    **troubles: Any,
) -> StatusReport:
    dagster = DagsterStanding(beats() if heartbeats is None else heartbeats, list(jobs), [], [])
    work = WorkStanding(halted, {}, [], {}, 0, NOTHING, NOTHING, NOTHING, 0, list(alerts), len(alerts))
    standing = StatusReport(NOW, None, None, dagster, work)
    if "application_trouble" in troubles:
        standing = replace(standing, work=None)
    if "dagster_trouble" in troubles:
        standing = replace(standing, dagster=None)
    return replace(standing, **troubles)


def judged(standing: StatusReport, *, dev_env: bool = False) -> Health:
    return judge_health(standing, heartbeat_seconds=120, dev_env=dev_env)


@pytest.mark.parametrize(
    ("standing", "level", "says"),
    [
        pytest.param(stood(job(), job("some_schedule", silent=None)), Level.WELL, None, id="all is well"),
        pytest.param(stood(application_trouble="It is away."), Level.DOWN, "It is away.", id="no application database"),
        pytest.param(stood(dagster_trouble="It is away."), Level.DOWN, "It is away.", id="no Dagster database"),
        pytest.param(stood(heartbeats={}), Level.DOWN, "never run", id="no daemon ever"),
        pytest.param(stood(heartbeats=beats(119)), Level.WELL, None, id="heartbeats are late, and borne"),
        pytest.param(stood(heartbeats=beats(120)), Level.DOWN, "no heartbeat since", id="the daemon is silent"),
        pytest.param(stood(heartbeats=beats(SENSOR=180)), Level.DOWN, "Part SENSOR", id="a part hangs"),
        pytest.param(stood(halted="Transfers are halted."), Level.DOWN, "Transfers are halted.", id="halted"),
        pytest.param(stood(job(silent=0)), Level.DOWN, "Transfers can't be sent", id="the sender is silent"),
        pytest.param(stood(job(silent=-1)), Level.WELL, None, id="the sender is late, and borne"),
        pytest.param(stood(job(state="STOPPED", silent=None)), Level.DOWN, "switched off", id="the sender is off"),
        pytest.param(stood(job("x_schedule", silent=9)), Level.DEGRADED, "x_schedule has stopped", id="ticks stopped"),
        pytest.param(stood(job("x_schedule", state="STOPPED")), Level.WELL, None, id="another one is off"),
        pytest.param(stood(alerts=(alert(),)), Level.DEGRADED, "HIGH alert 7", id="an urgent alert"),
        pytest.param(stood(alerts=(alert(severity="CRITICAL"),)), Level.DEGRADED, "CRITICAL", id="a critical alert"),
        pytest.param(stood(alerts=(alert(severity="MEDIUM"),)), Level.WELL, None, id="an alert that is not urgent"),
        pytest.param(stood(alerts=(alert(seen_to=True),)), Level.WELL, None, id="somebody sees to the alert"),
        pytest.param(stood(alerts=(alert("daemon_silent"),)), Level.WELL, None, id="the watchdog has not seen the end"),
        pytest.param(
            stood(alerts=(alert("bank_unauthorized", seen_to=True),)),
            Level.DOWN,
            "Transfers can't be sent",
            id="the bank refuses us, whoever sees to it",
        ),
    ],
)
def test_level(standing: StatusReport, level: Level, says: str | None) -> None:
    health = judged(standing)
    assert health.level is level
    assert [reason for reason in health.reasons if says is None or says in reason.sentence] == health.reasons
    assert bool(health.reasons) == (level is not Level.WELL)


def test_the_worst_comes_first_and_decides() -> None:
    health = judged(stood(job("x_schedule", silent=9), alerts=(alert(),), halted="Transfers are halted."))
    assert health.level is Level.DOWN
    assert [reason.level for reason in health.reasons] == [Level.DOWN, Level.DEGRADED, Level.DEGRADED]


def test_daemon_that_is_silent_is_one_reason() -> None:
    health = judged(stood(job(silent=9), job("x_schedule", silent=9), heartbeats=beats(300)))
    assert len(health.reasons) == 1


def test_one_cause_of_both_databases_is_one_sentence() -> None:
    assert len(judged(stood(application_trouble="No server.", dagster_trouble="No server.")).reasons) == 1


def test_on_a_developers_machine_the_sender_may_be_off() -> None:
    assert judged(stood(job(state="STOPPED", silent=None)), dev_env=True).level is Level.WELL
