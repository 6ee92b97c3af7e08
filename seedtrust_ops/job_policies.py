"""What holds for each job by its name: how bad it is when it stops, how long its runs may wait, and where it belongs.

Design, section 1. When a job runs and what it does is in its own file; what follows from a severity is `severity`'s.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from seedtrust_ops.severity import Severity

SEVERITY_TAG = "seedtrust/severity"
GROUP_TAG = "seedtrust/group"
EXPIRES_TAG = "seedtrust/expires_in_seconds"
SINGLETON_TAG = "seedtrust/singleton"
"""Runs with the same value of it never run at once: `dagster.yaml` limits each value to one."""
PARALLEL_TAG = "seedtrust/parallel"
"""Runs with it may run side by side, up to the number that `dagster.yaml` gives for its value."""

LONGEST_TAG = "dagster/max_runtime"
LONGEST_SECONDS = 3600
"""After so long Dagster ends a run whose job gives no limit of its own: one that hangs must not keep its job's place
in the queue for ever."""


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


@dataclass(frozen=True)
class JobPolicy:
    """The rules of one job.

    Args:
        severity: how bad it is when the job stops.
        group: the part of the business that it belongs to.
        expires_after: a run that is queued for longer is cancelled; None where it may wait for ever.
        singleton: whether two of its runs must not run at once.
    """

    severity: Severity
    group: Group
    expires_after: timedelta | None
    singleton: bool = True


JOB_POLICIES = {
    "process_huntington_batch": JobPolicy(Severity.CRITICAL, Group.TRANSFERS, None, singleton=False),
    "auto_heal_huntington_batches": JobPolicy(Severity.HIGH, Group.TRANSFERS, timedelta(minutes=2)),
    "dr_auto_approval": JobPolicy(Severity.CRITICAL, Group.APPROVALS, timedelta(hours=6)),
    "rule_based_approval": JobPolicy(Severity.CRITICAL, Group.APPROVALS, timedelta(hours=1)),
    "report_generation": JobPolicy(Severity.CRITICAL, Group.REPORTS, timedelta(minutes=2)),
    "case_close_reminders": JobPolicy(Severity.HIGH, Group.CASES, timedelta(hours=6)),
    "account_balance_check": JobPolicy(Severity.MEDIUM, Group.BALANCES, timedelta(hours=24)),
    "account_balance_reminders": JobPolicy(Severity.MEDIUM, Group.BALANCES, timedelta(hours=24)),
    "aws_status_check": JobPolicy(Severity.MEDIUM, Group.HEALTH, timedelta(minutes=5)),
    # Not in the design's table, but in issue 7: each shows people what the others did.
    "huntington_reconciliation": JobPolicy(Severity.MEDIUM, Group.TRANSFERS, timedelta(hours=12)),
    "operations_review": JobPolicy(Severity.LOW, Group.HEALTH, timedelta(hours=24)),
    "off_site_tracking": JobPolicy(Severity.LOW, Group.HEALTH, timedelta(minutes=30)),
    "example": JobPolicy(Severity.LOW, Group.HEALTH, timedelta(hours=1), singleton=False),
    "example_error": JobPolicy(Severity.LOW, Group.HEALTH, timedelta(hours=1), singleton=False),
    "example_progress": JobPolicy(Severity.LOW, Group.HEALTH, timedelta(hours=1), singleton=False),
    "example_with_args": JobPolicy(Severity.LOW, Group.HEALTH, timedelta(hours=1), singleton=False),
    # Not in the design's table: it deletes what is old, and a day without it harms nobody.
    "retention": JobPolicy(Severity.LOW, Group.HEALTH, timedelta(hours=24)),
}
DEFAULT_POLICY = JobPolicy(Severity.HIGH, Group.HEALTH, None, singleton=False)
"""What holds for a run of none of these jobs, such as one that makes an asset by hand: in doubt, people are told."""


def job_policy(job_name: str) -> JobPolicy:
    """Return what holds for runs of the job, `DEFAULT_POLICY` where it is none of ours."""
    return JOB_POLICIES.get(job_name, DEFAULT_POLICY)


def labels_of(job_name: str) -> dict[str, str]:
    """Return the tags by which people find the job, what launches it and what it makes: its severity and its group."""
    rules = job_policy(job_name)
    return {SEVERITY_TAG: rules.severity.value, GROUP_TAG: rules.group.value}


def queue_tags(job_name: str) -> dict[str, str]:
    """Return the tags by which Dagster's queue and the queue expiry know what holds for a run of the job."""
    rules = job_policy(job_name)
    tags = {SINGLETON_TAG if rules.singleton else PARALLEL_TAG: job_name, LONGEST_TAG: str(LONGEST_SECONDS)}
    if rules.expires_after is not None:
        tags[EXPIRES_TAG] = str(round(rules.expires_after.total_seconds()))
    return tags
