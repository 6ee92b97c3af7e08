"""The policy of each job by name: severity, business group, owner and queue limits (docs/rules.md, section 1).

When a job runs and what it does is in its own file in `jobs`; queue priority follows from `severity`.
See docs/decisions/queue-limits.md.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from seedtrust_ops.severity import Severity
from seedtrust_ops.tag_names import (
    EXPIRES_TAG,
    GROUP_TAG,
    MAX_RUNTIME_TAG,
    PARALLEL_TAG,
    PRIORITY_TAG,
    SEVERITY_TAG,
    SINGLETON_TAG,
)

MAX_PRIORITY_OFFSET = 499
"""Half the distance between the priorities of two severities, so that an offset never reaches another severity."""


class Group(StrEnum):
    """A business area, as shown in Dagster's asset groups and run tags."""

    APPROVALS = "approvals"
    TRANSFERS = "transfers"
    BALANCES = "balances"
    REPORTS = "reports"
    CASES = "cases"
    HEALTH = "health"

    @property
    def owner(self) -> str:
        """The owning team, in Dagster's notation."""
        return "team:engineering" if self is Group.HEALTH else "team:operations"


@dataclass(frozen=True)
class JobPolicy:
    """The fixed properties of one job.

    Args:
        severity: how serious it is if the job stops running.
        group: the business area it belongs to.
        expires_after: a run that is queued for longer is canceled; None if it may wait forever.
        singleton: whether at most one run of it may be in progress.
        always_live: whether it is never in shadow mode, because it changes only what this project itself has written,
            which no legacy system does for us.
        max_runtime: Dagster ends a run that takes longer, because one that hangs must not hold its slot forever.
    """

    severity: Severity
    group: Group
    expires_after: timedelta | None
    singleton: bool = True
    always_live: bool = False
    max_runtime: timedelta = timedelta(hours=1)


JOB_POLICIES = {
    # A run that reaches the limit returns its batch.
    "process_huntington_batch": JobPolicy(
        Severity.CRITICAL, Group.TRANSFERS, None, singleton=False, max_runtime=timedelta(hours=6)
    ),
    "auto_heal_huntington_batches": JobPolicy(
        Severity.HIGH, Group.TRANSFERS, timedelta(minutes=2), max_runtime=timedelta(minutes=15)
    ),
    # These two are launched by a person who waits for them.
    "settle_transfer": JobPolicy(Severity.MEDIUM, Group.TRANSFERS, timedelta(hours=1), singleton=False),
    "explain_transfer": JobPolicy(Severity.MEDIUM, Group.TRANSFERS, timedelta(hours=1), singleton=False),
    "dr_auto_approval": JobPolicy(Severity.CRITICAL, Group.APPROVALS, timedelta(hours=6)),
    "rule_based_approval": JobPolicy(Severity.CRITICAL, Group.APPROVALS, timedelta(hours=1)),
    "report_generation": JobPolicy(Severity.CRITICAL, Group.REPORTS, timedelta(minutes=2)),
    "case_close_reminders": JobPolicy(Severity.HIGH, Group.CASES, timedelta(hours=6)),
    "account_balance_check": JobPolicy(Severity.MEDIUM, Group.BALANCES, timedelta(hours=24)),
    "account_balance_reminders": JobPolicy(Severity.MEDIUM, Group.BALANCES, timedelta(hours=24)),
    "aws_status_check": JobPolicy(
        Severity.MEDIUM, Group.HEALTH, timedelta(minutes=5), max_runtime=timedelta(minutes=4)
    ),
    # These two show people what the other jobs did.
    "huntington_reconciliation": JobPolicy(Severity.HIGH, Group.TRANSFERS, timedelta(hours=12)),
    "operations_review": JobPolicy(Severity.LOW, Group.HEALTH, timedelta(hours=24)),
    # By hand.
    "requeue_failed_payments": JobPolicy(Severity.MEDIUM, Group.TRANSFERS, timedelta(hours=1)),
    "off_site_tracking": JobPolicy(Severity.LOW, Group.HEALTH, timedelta(minutes=30)),
    "example": JobPolicy(Severity.LOW, Group.HEALTH, timedelta(hours=1), singleton=False),
    "example_error": JobPolicy(Severity.LOW, Group.HEALTH, timedelta(hours=1), singleton=False),
    "example_progress": JobPolicy(Severity.LOW, Group.HEALTH, timedelta(hours=1), singleton=False),
    "example_with_args": JobPolicy(Severity.LOW, Group.HEALTH, timedelta(hours=1), singleton=False),
    # It purges old rows; skipping it for a day does no harm. In shadow mode they accumulate as they do otherwise.
    "retention": JobPolicy(Severity.LOW, Group.HEALTH, timedelta(hours=24), always_live=True),
}
DEFAULT_POLICY = JobPolicy(Severity.HIGH, Group.HEALTH, None, singleton=False)
"""The policy of a run of any other job, such as a manual asset materialization. If in doubt, people are notified."""
UNLISTED = "unlisted jobs"
"""The value of the tag `seedtrust/parallel` of such runs, for which `dagster.yaml` has one limit."""


def job_policy(job_name: str) -> JobPolicy:
    """Return the policy of the job, or `DEFAULT_POLICY` if the job is not listed."""
    return JOB_POLICIES.get(job_name, DEFAULT_POLICY)


def label_tags(job_name: str) -> dict[str, str]:
    """Return the severity and group tags by which people find a job and its schedules, sensors and assets."""
    policy = job_policy(job_name)
    return {SEVERITY_TAG: policy.severity.value, GROUP_TAG: policy.group.value}


def run_tags(job_name: str, *, priority_offset: int = 0) -> dict[str, str]:
    """Return the severity and priority tags of a run of the job.

    A run of no listed job is queued behind all others, whatever its severity: no backfill holds up a batch.

    Args:
        job_name: the name of the job, whose policy states the severity.
        priority_offset: raises or lowers the run among runs of the same severity, never past another severity.
    """
    severity = job_policy(job_name).severity
    bounded = max(-MAX_PRIORITY_OFFSET, min(MAX_PRIORITY_OFFSET, priority_offset))
    return {SEVERITY_TAG: severity.value, PRIORITY_TAG: str(_base_priority(job_name) + bounded)}


def is_priority_of(job_name: str, priority: str) -> bool:
    """Return whether a run of the job may have this value of the priority tag."""
    try:
        return abs(int(priority) - _base_priority(job_name)) <= MAX_PRIORITY_OFFSET
    except ValueError:
        return False


def policy_tags(job_name: str) -> dict[str, str]:
    """Return every tag that a run of the job has by its policy: labels, priority, and the queue's limits."""
    policy = job_policy(job_name)
    tags = label_tags(job_name) | run_tags(job_name)
    if policy.singleton:
        tags[SINGLETON_TAG] = job_name
    else:
        tags[PARALLEL_TAG] = job_name if job_name in JOB_POLICIES else UNLISTED
    tags[MAX_RUNTIME_TAG] = _in_seconds(policy.max_runtime)
    if policy.expires_after is not None:
        tags[EXPIRES_TAG] = _in_seconds(policy.expires_after)
    return tags


def _base_priority(job_name: str) -> int:
    return (job_policy(job_name).severity if job_name in JOB_POLICIES else Severity.LOW).priority


def _in_seconds(duration: timedelta) -> str:
    return str(round(duration.total_seconds()))
