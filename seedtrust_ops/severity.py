"""How bad it is when a job stops (design, section 1), and what follows from that for its runs."""

from enum import StrEnum

BATCH_PRIORITY_BOUND = 499


class Severity(StrEnum):
    """Severity of a job, an alert or an error, worst first."""

    CRITICAL = "CRITICAL"
    HIGH = "HIGH"
    MEDIUM = "MEDIUM"
    LOW = "LOW"

    @property
    def priority(self) -> int:
        """The place of its runs in Dagster's queue: a higher number starts first."""
        return {"CRITICAL": 3000, "HIGH": 2000, "MEDIUM": 1000, "LOW": 0}[self.value]


def run_tags(severity: Severity, *, priority_within: int = 0) -> dict[str, str]:
    """Return the tags of a run of this severity.

    Args:
        severity: the job's.
        priority_within: moves the run among those of its severity, never past another severity's.
    """
    bounded = max(-BATCH_PRIORITY_BOUND, min(BATCH_PRIORITY_BOUND, priority_within))
    return {"seedtrust/severity": severity.value, "dagster/priority": str(severity.priority + bounded)}
