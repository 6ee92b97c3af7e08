"""Rates a status report as healthy, degraded or down: one pure function.

See docs/decisions/watchdog.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

from seedtrust_ops.domain.alerts.channel_state import IMMEDIATE_SEVERITIES, WATCHDOG_RULES
from seedtrust_ops.formatting import format_duration, pluralize
from seedtrust_ops.status.models import DagsterStatus, StatusReport, Unnotified, Workload
from seedtrust_ops.watchdog.evaluator import SCHEDULER_INTERVAL

BATCH_SENSOR = "huntington_batch_sensor"
BLOCKING_ALERT_RULES = frozenset({"bank_unauthorized", "bank_silent"})
"""Alert rules that mean no transfers can be sent while an alert is open."""


HEARTBEAT_INTERVAL = timedelta(seconds=30)
"""How often each part of Dagster's daemon sends a heartbeat; only its scheduler takes up to twice as long."""
HEARTBEAT_LATE = HEARTBEAT_INTERVAL + timedelta(seconds=5)
NOTIFIED_WITHIN = timedelta(seconds=60)
"""An alert is notified by the next tick of the health sensor; three of them fit into this time."""


class Level(IntEnum):
    """The health level; its number is the exit code of `seedtrust-ops health` (docs/rules.md, section 7)."""

    HEALTHY = 0
    DEGRADED = 1
    DOWN = 2


@dataclass(frozen=True)
class Reason:
    """One reason why the system is not healthy."""

    level: Level
    message: str


@dataclass(frozen=True)
class Health:
    """The worst level of all reasons, and the reasons, worst first."""

    level: Level
    reasons: list[Reason]


def evaluate_health(report: StatusReport, *, heartbeat_seconds: float, dev_env: bool) -> Health:
    """Return the health level and its reasons.

    DOWN: a database is unavailable, the daemon is silent, transfers cannot be sent (they are halted, the bank rejects
    us or does not respond, or the batch sensor is off or silent), or people should have been notified of an alert and
    nobody was. DEGRADED: a CRITICAL or HIGH alert is open and not acknowledged, a schedule or sensor has stopped
    ticking, or the daemon's heartbeat is late. While the daemon is silent, ticks are ignored.

    Args:
        report: the status.
        heartbeat_seconds: how long the daemon may send no heartbeat.
        dev_env: whether this is a developer's machine, where production sensors start switched off.
    """
    reasons = [Reason(Level.DOWN, error) for error in report.errors]
    if report.dagster is not None:
        silent = _check_daemon(report.dagster, report.at, timedelta(seconds=heartbeat_seconds))
        reasons += [silent] if silent is not None else _check_ticks(report.dagster, report.at, dev_env)
    if report.workload is not None:
        reasons += _check_workload(report.workload, report.at)
    reasons.sort(key=lambda reason: -reason.level)
    return Health(max((reason.level for reason in reasons), default=Level.HEALTHY), reasons)


def _check_daemon(dagster: DagsterStatus, now: datetime, limit: timedelta) -> Reason | None:
    if not dagster.heartbeats:
        return Reason(Level.DOWN, "Dagster's daemon has never run on this database. Start `seedtrust-ops worker`.")
    newest = max(dagster.heartbeats.values())
    if now - newest >= limit:
        return Reason(
            Level.DOWN,
            f"Dagster's daemon has sent no heartbeat since {newest:%Y-%m-%d %H:%M:%S} UTC. Check whether "
            "`seedtrust-ops worker` is running.",
        )
    if now - newest > HEARTBEAT_LATE:
        return Reason(
            Level.DEGRADED,
            f"Dagster's daemon has been silent for {format_duration((now - newest).total_seconds())}; it sends a "
            f"heartbeat every {HEARTBEAT_INTERVAL.seconds} s. Check whether `seedtrust-ops worker` is running.",
        )
    hanging = [
        daemon for daemon, heartbeat in dagster.heartbeats.items() if now - heartbeat >= limit + SCHEDULER_INTERVAL
    ]
    if hanging:
        return Reason(
            Level.DOWN,
            f"There is no heartbeat from {' and '.join(sorted(hanging))} of Dagster's daemon. Restart "
            "`seedtrust-ops worker`.",
        )
    return None


def _check_ticks(dagster: DagsterStatus, now: datetime, dev_env: bool) -> Iterator[Reason]:
    for job in dagster.jobs:
        if job.automation == BATCH_SENSOR and job.state == "STOPPED" and not dev_env:
            yield Reason(
                Level.DOWN, f"Transfers cannot be sent: {BATCH_SENSOR} is switched off. Switch it on in the Dagster UI."
            )
        if job.state != "RUNNING" or job.silent_at is None or now < job.silent_at:
            continue
        stopped = f"{job.automation} has stopped ticking; its last tick is {job.last_tick_status or 'none'}."
        if job.automation == BATCH_SENSOR:
            yield Reason(Level.DOWN, f"Transfers cannot be sent: {stopped}")
        else:
            yield Reason(Level.DEGRADED, stopped)


def _check_workload(workload: Workload, now: datetime) -> Iterator[Reason]:
    yield from _check_notification(workload.unnotified, now)
    if workload.halted_reason is not None:
        yield Reason(Level.DOWN, workload.halted_reason)
    for alert in workload.alerts:
        if alert.rule in WATCHDOG_RULES:
            # The checks above cover the watchdog's rules with current data.
            continue
        message = f"{alert.severity} alert {alert.id}, {alert.rule} ({alert.subject}): {alert.detail}"
        if alert.rule in BLOCKING_ALERT_RULES:
            yield Reason(Level.DOWN, f"Transfers cannot be sent. {message}")
        elif alert.severity in IMMEDIATE_SEVERITIES and alert.acknowledged_by is None:
            yield Reason(Level.DEGRADED, message)


def _check_notification(unnotified: Unnotified, now: datetime) -> Iterator[Reason]:
    if unnotified.since is None:
        return
    alerts = pluralize(unnotified.alerts, "urgent alert")
    if unnotified.email_error is not None:
        yield Reason(Level.DOWN, f"Nobody can be notified of {alerts}: {unnotified.email_error}")
    elif now - unnotified.since > NOTIFIED_WITHIN:
        yield Reason(
            Level.DOWN,
            f"Nobody has been notified of {alerts}, open for up to "
            f"{format_duration((now - unnotified.since).total_seconds())}. The last tick of job_health_sensor says "
            "why: ALERT_EMAILS or the mail server's variables may be missing. `seedtrust-ops alerts` lists them.",
        )
