"""Health of the schedules and sensors: a tick that should have been and was not.

What is switched off is left alone. Where the facts come from is `monitoring/`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.health.rule import in_time
from seedtrust_ops.severity import Severity

SCHEDULE_MISSED = "schedule_missed"


@dataclass(frozen=True)
class Automation:
    """A schedule or sensor that is on: when the next tick after its last good one was due (aware), and how bad
    it is when what it launches does not run."""

    name: str
    severity: Severity
    due_at: datetime
    last_trouble: str | None = None
    """What became of its newest tick, where that is no good end."""


def schedule_missed(
    automations: Sequence[Automation], *, now: datetime, awake_since: datetime, missed_seconds: float
) -> list[Finding]:
    """Find those whose tick has been due for more than `missed_seconds`.

    `awake_since` is when the daemon last came back: what was due before gets so long to be caught up with.
    """
    found = []
    for automation in automations:
        late = now - max(automation.due_at, awake_since)
        if late <= timedelta(seconds=missed_seconds):
            continue
        because = f" Its newest tick: {automation.last_trouble}." if automation.last_trouble else ""
        found.append(
            Finding(
                SCHEDULE_MISSED,
                automation.name,
                automation.severity,
                f"{automation.name} should have ticked {in_time((now - automation.due_at).total_seconds())} ago and "
                f"did not.{because} See its ticks in the Dagster UI; if there are none, restart the worker, and "
                "launch by hand what can't wait.",
            )
        )
    return found
