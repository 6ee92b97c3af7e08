"""Judges how things stand: well, degraded or down; one pure function over facts."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

from seedtrust_ops.severity import Severity
from seedtrust_ops.status.models import DagsterStanding, StatusReport, WorkStanding
from seedtrust_ops.watchdog.evaluator import RULES, SCHEDULER_SLEEPS

SENDER = "huntington_batch_sensor"
NOTHING_IS_SENT = frozenset({"bank_unauthorized", "bank_silent"})
"""The alerts while which no transfer leaves."""
URGENT = frozenset({Severity.CRITICAL.value, Severity.HIGH.value})


class Level(IntEnum):
    """How things stand; the number is the exit code of `seedtrust-ops health` (design, section 7)."""

    WELL = 0
    DEGRADED = 1
    DOWN = 2


@dataclass(frozen=True)
class Reason:
    """One thing that is not well, as a sentence."""

    level: Level
    sentence: str


@dataclass(frozen=True)
class Health:
    """The worst level of all reasons, and the reasons, worst first."""

    level: Level
    reasons: list[Reason]


def judge_health(standing: StatusReport, *, heartbeat_seconds: float, dev_env: bool) -> Health:
    """Return how things stand.

    DOWN: a database is away, the daemon's heart does not beat, or transfers can't be sent (halted, refused or not
    answered by the bank, or their sensor off or silent). DEGRADED: an urgent alert is open that nobody has
    acknowledged, or a schedule or sensor has stopped ticking. While the daemon is silent, nothing is said of ticks.

    Args:
        standing: the facts.
        heartbeat_seconds: how long the daemon may send no heartbeat.
        dev_env: whether it is a developer's machine, where production's sensors start switched off.
    """
    reasons = [Reason(Level.DOWN, trouble) for trouble in standing.troubles]
    if standing.dagster is not None:
        silent = _silence(standing.dagster, standing.at, timedelta(seconds=heartbeat_seconds))
        reasons += [silent] if silent is not None else _ticks(standing.dagster, standing.at, dev_env)
    if standing.work is not None:
        reasons += _work(standing.work)
    reasons.sort(key=lambda reason: -reason.level)
    return Health(max((reason.level for reason in reasons), default=Level.WELL), reasons)


def _silence(dagster: DagsterStanding, now: datetime, borne: timedelta) -> Reason | None:
    if not dagster.heartbeats:
        return Reason(Level.DOWN, "Dagster's daemon has never run on this database: start `seedtrust-ops worker`.")
    newest = max(dagster.heartbeats.values())
    if now - newest >= borne:
        return Reason(
            Level.DOWN,
            f"Dagster's daemon has sent no heartbeat since {newest:%Y-%m-%d %H:%M:%S} UTC: see whether "
            "`seedtrust-ops worker` runs.",
        )
    hanging = [part for part, beat in dagster.heartbeats.items() if now - beat >= borne + SCHEDULER_SLEEPS]
    if hanging:
        return Reason(
            Level.DOWN,
            f"Part {' and '.join(sorted(hanging))} of Dagster's daemon sends no heartbeat: restart "
            "`seedtrust-ops worker`.",
        )
    return None


def _ticks(dagster: DagsterStanding, now: datetime, dev_env: bool) -> Iterator[Reason]:
    for job in dagster.jobs:
        if job.automation == SENDER and job.state == "STOPPED" and not dev_env:
            yield Reason(
                Level.DOWN, f"Transfers can't be sent: {SENDER} is switched off. Switch it on in the Dagster UI."
            )
        if job.state != "RUNNING" or job.silent_at is None or now < job.silent_at:
            continue
        stopped = f"{job.automation} has stopped ticking; its newest tick is {job.last_tick_status or 'none'}."
        if job.automation == SENDER:
            yield Reason(Level.DOWN, f"Transfers can't be sent: {stopped}")
        else:
            yield Reason(Level.DEGRADED, stopped)


def _work(work: WorkStanding) -> Iterator[Reason]:
    if work.halted is not None:
        yield Reason(Level.DOWN, work.halted)
    for alert in work.alerts:
        if alert.rule in RULES:
            # What the watchdog finds was looked at first hand above.
            continue
        said = f"{alert.severity} alert {alert.id}, {alert.rule} ({alert.subject}): {alert.detail}"
        if alert.rule in NOTHING_IS_SENT:
            yield Reason(Level.DOWN, f"Transfers can't be sent. {said}")
        elif alert.severity in URGENT and alert.acknowledged_by is None:
            yield Reason(Level.DEGRADED, said)
