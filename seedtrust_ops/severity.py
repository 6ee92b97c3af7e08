"""Severity of a job, an alert or an error (docs/rules.md, section 1), and the queue priority that follows from it."""

from enum import StrEnum

MAX_PRIORITY_OFFSET = 499


class Severity(StrEnum):
    """Severity levels, most severe first."""

    CRITICAL = "CRITICAL"
    HIGH = "HIGH"
    MEDIUM = "MEDIUM"
    LOW = "LOW"

    @property
    def priority(self) -> int:
        """The priority of its runs in Dagster's queue; higher numbers start first."""
        return {"CRITICAL": 3000, "HIGH": 2000, "MEDIUM": 1000, "LOW": 0}[self.value]


def run_tags(severity: Severity, *, priority_offset: int = 0) -> dict[str, str]:
    """Return the severity and priority tags of a run.

    Args:
        severity: the severity of the job.
        priority_offset: raises or lowers the run among runs of the same severity, never past another severity.
    """
    bounded = max(-MAX_PRIORITY_OFFSET, min(MAX_PRIORITY_OFFSET, priority_offset))
    return {"seedtrust/severity": severity.value, "dagster/priority": str(severity.priority + bounded)}
