"""Reads how long a run may wait in the queue, and tags a run that expired.

`monitoring/queue_expiration` cancels expired runs in the queue; `executor` ends one that left the queue anyway.
See docs/decisions/queue-limits.md.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg

from seedtrust_ops.job_policies import job_policy
from seedtrust_ops.tag_names import EXPIRED_TAG, EXPIRES_TAG


def expires_after(run: dg.DagsterRun) -> timedelta | None:
    """Return how long the run may wait in the queue, from its tag or else its job; None if it never expires."""
    try:
        return timedelta(seconds=float(run.tags[EXPIRES_TAG]))
    except (KeyError, ValueError, OverflowError):
        return job_policy(run.job_name).expires_after


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
    limit = expires_after(run)
    record = instance.get_run_record_by_id(run.run_id)
    if limit is None or record is None or datetime.now(UTC) - record.create_timestamp <= limit:
        return False
    stats = instance.get_run_stats(run.run_id)
    enqueued, launched = stats.enqueued_time, stats.launch_time
    return enqueued is not None and launched is not None and timedelta(seconds=launched - enqueued) > limit
