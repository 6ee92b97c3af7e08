"""Ends runs that have been queued longer than their job's limit, so that no outdated work is done.

`job_run_sensor` cancels them in the queue, and `executor` ends one that left the queue anyway. They are tagged before
they are canceled, so that JobRun can distinguish them from runs that a person canceled.
See docs/decisions/queue-limits.md.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg

from seedtrust_ops.job_policies import JOB_POLICIES, job_policy
from seedtrust_ops.tag_names import EXPIRED_TAG

GRACE = timedelta(seconds=5)
"""A run that left the queue just in time may still be recorded as queued for this long, so it is not canceled while it
starts. A run that leaves the queue later ends without doing work (`orchestration/executor`)."""
RUNS_PER_PAGE = 500
MAX_CANCELED_PER_TICK = 200
"""A cancellation takes a few statements each; the next tick cancels the rest."""


def has_expired(run: dg.DagsterRun) -> bool:
    """Return whether the run was marked as expired; if it was then canceled, this is why."""
    return run.tags.get(EXPIRED_TAG) == run.run_id


def mark_expired(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Tag the run as expired. Call this before canceling it."""
    instance.add_run_tags(run.run_id, {EXPIRED_TAG: run.run_id})


def waited_too_long(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Return whether a run that is about to start waited in the queue longer than its limit.

    A run that was never queued (`dagster job execute`) has not waited.
    """
    limit = job_policy(run.job_name).expires_after
    record = instance.get_run_record_by_id(run.run_id)
    if limit is None or record is None or datetime.now(UTC) - record.create_timestamp <= limit:
        return False
    stats = instance.get_run_stats(run.run_id)
    enqueued, launched = stats.enqueued_time, stats.launch_time
    return enqueued is not None and launched is not None and timedelta(seconds=launched - enqueued) > limit


def cancel_expired_runs(instance: dg.DagsterInstance) -> int:
    """Cancel the expired runs in the queue; return how many. A run that has left the queue is never touched.

    If a tick crashes between tagging and canceling a run, the next one cancels it.
    """
    now = datetime.now(UTC)
    shortest_limit = min(policy.expires_after for policy in JOB_POLICIES.values() if policy.expires_after is not None)
    canceled, cursor = 0, None
    while True:
        page = instance.get_run_records(
            dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED], created_before=now - shortest_limit - GRACE),
            limit=RUNS_PER_PAGE,
            ascending=True,
            cursor=cursor,
        )
        for record in page:
            if _is_expired(record, now):
                canceled += _cancel(instance, record.dagster_run)
                if canceled == MAX_CANCELED_PER_TICK:
                    return canceled
        if len(page) < RUNS_PER_PAGE:
            return canceled
        cursor = page[-1].dagster_run.run_id


def _is_expired(record: dg.RunRecord, now: datetime) -> bool:
    limit = job_policy(record.dagster_run.job_name).expires_after
    return limit is not None and now - record.create_timestamp > limit + GRACE


def _cancel(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    mark_expired(instance, run)
    current = instance.get_run_by_id(run.run_id)
    if current is None or current.status is not dg.DagsterRunStatus.QUEUED:
        return False
    # Not `run_coordinator.cancel_run`, which would terminate the run's process if the run has just started.
    instance.report_run_canceling(current, message="Expired: waited in the queue longer than this job's limit.")
    instance.report_run_canceled(current)
    return True
