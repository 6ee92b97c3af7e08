"""What holds for each job by its name: how bad it is when it stops, and how long its runs may wait in the queue.

Design, section 1. When a job runs and what it does is in its own file; what follows from a severity is `severity`'s.
"""

from dataclasses import dataclass
from datetime import timedelta

from seedtrust_ops.severity import Severity

SEVERITY_TAG = "seedtrust/severity"
EXPIRES_TAG = "seedtrust/expires_in_seconds"
SINGLETON_TAG = "seedtrust/singleton"
"""Runs with the same value of it never run at once: `dagster.yaml` limits each value to one."""
PARALLEL_TAG = "seedtrust/parallel"
"""Runs with it may run side by side, up to the number that `dagster.yaml` gives for its value."""

LONGEST_TAG = "dagster/max_runtime"
LONGEST_SECONDS = 3600
"""After so long Dagster ends a run whose job gives no limit of its own: one that hangs must not keep its job's place
in the queue for ever."""


@dataclass(frozen=True)
class JobRules:
    """The rules of one job.

    Args:
        severity: how bad it is when the job stops.
        expires_after: a run that is queued for longer is cancelled; None where it may wait for ever.
        singleton: whether two of its runs must not run at once.
    """

    severity: Severity
    expires_after: timedelta | None
    singleton: bool = True


JOB_RULES = {
    "process_huntington_batch": JobRules(Severity.CRITICAL, None, singleton=False),
    "auto_heal_huntington_batches": JobRules(Severity.HIGH, timedelta(minutes=2)),
    "dr_auto_approval": JobRules(Severity.CRITICAL, timedelta(hours=6)),
    "rule_based_approval": JobRules(Severity.CRITICAL, timedelta(hours=1)),
    "report_generation": JobRules(Severity.CRITICAL, timedelta(minutes=2)),
    "case_close_reminders": JobRules(Severity.HIGH, timedelta(hours=6)),
    "account_balance_check": JobRules(Severity.MEDIUM, timedelta(hours=24)),
    "account_balance_reminders": JobRules(Severity.MEDIUM, timedelta(hours=24)),
    "aws_status_check": JobRules(Severity.MEDIUM, timedelta(minutes=5)),
    "off_site_tracking": JobRules(Severity.LOW, timedelta(minutes=30)),
    "example": JobRules(Severity.LOW, timedelta(hours=1), singleton=False),
    "example_error": JobRules(Severity.LOW, timedelta(hours=1), singleton=False),
    "example_progress": JobRules(Severity.LOW, timedelta(hours=1), singleton=False),
    "example_with_args": JobRules(Severity.LOW, timedelta(hours=1), singleton=False),
    # Not in the design's table: it deletes what is old, and a day without it harms nobody.
    "retention": JobRules(Severity.LOW, timedelta(hours=24)),
}
UNNAMED = JobRules(Severity.HIGH, None, singleton=False)
"""What holds for a run of none of these jobs, such as one that makes an asset by hand: in doubt, people are told."""


def rules_of(job_name: str) -> JobRules:
    """Return what holds for runs of the job, `UNNAMED` where it is none of ours."""
    return JOB_RULES.get(job_name, UNNAMED)


def queue_tags(job_name: str) -> dict[str, str]:
    """Return the tags by which Dagster's queue and the queue expiry know what holds for a run of the job."""
    rules = rules_of(job_name)
    tags = {SINGLETON_TAG if rules.singleton else PARALLEL_TAG: job_name, LONGEST_TAG: str(LONGEST_SECONDS)}
    if rules.expires_after is not None:
        tags[EXPIRES_TAG] = str(round(rules.expires_after.total_seconds()))
    return tags
