"""Severity of a job, an alert or an error (docs/rules.md, section 1), and the queue priority that follows from it."""

from enum import StrEnum


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
