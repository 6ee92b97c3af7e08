"""Health of the schedules and sensors: a tick that was due and did not happen.

Stopped schedules and sensors are not watched. The tick data is read in `monitoring/health_rules`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.formatting import format_duration
from seedtrust_ops.severity import Severity

SCHEDULE_MISSED = "schedule_missed"


@dataclass(frozen=True)
class Automation:
    """A running schedule or sensor: `due_at` (aware) is when the tick after its last successful one was due, and
    `severity` is the severity of the jobs that it launches."""

    name: str
    severity: Severity
    due_at: datetime
    last_tick_error: str | None = None
    """The status of its newest tick if that was not successful."""


def schedule_missed(
    automations: Sequence[Automation], *, now: datetime, daemon_up_since: datetime, missed_seconds: float
) -> list[Finding]:
    """Find schedules and sensors whose tick has been due for more than `missed_seconds`.

    `daemon_up_since` is when the daemon last came back: ticks that were due before that get as long to catch up.
    """
    found = []
    for automation in automations:
        overdue = now - max(automation.due_at, daemon_up_since)
        if overdue <= timedelta(seconds=missed_seconds):
            continue
        last_tick = f" Its newest tick: {automation.last_tick_error}." if automation.last_tick_error else ""
        found.append(
            Finding(
                SCHEDULE_MISSED,
                automation.name,
                automation.severity,
                f"{automation.name} has missed a tick that was due "
                f"{format_duration((now - automation.due_at).total_seconds())} ago.{last_tick} Check its ticks in the "
                "Dagster UI. If there are none, restart the worker. Launch urgent jobs manually.",
            )
        )
    return found
