"""The parts of the business that jobs and assets belong to, and who answers for each.

Which job belongs where is said in `job_rules`.
"""

from enum import StrEnum


class Group(StrEnum):
    """A part of the business, as Dagster's list of assets and the tags of runs name it."""

    APPROVALS = "approvals"
    TRANSFERS = "transfers"
    BALANCES = "balances"
    REPORTS = "reports"
    CASES = "cases"
    HEALTH = "health"

    @property
    def owner(self) -> str:
        """The team to ask first, as Dagster writes teams."""
        return "team:engineering" if self is Group.HEALTH else "team:operations"
