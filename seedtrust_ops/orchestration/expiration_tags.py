"""Says how long a run may wait in the queue, and marks one that waited too long, by tags of the run.

`monitoring/queue_expiry` cancels such runs while they wait; `executing` ends one that left the queue all the same.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg

from seedtrust_ops.job_policies import EXPIRES_TAG, job_policy
from seedtrust_ops.tag_names import EXPIRED_TAG


def expires_after(run: dg.DagsterRun) -> timedelta | None:
    """Return how long the run may be queued: what its tag says, or else its job; None where it never expires."""
    try:
        return timedelta(seconds=float(run.tags[EXPIRES_TAG]))
    except (KeyError, ValueError, OverflowError):
        return job_policy(run.job_name).expires_after


def has_expired(run: dg.DagsterRun) -> bool:
    """Return whether the run was found to have waited too long; where it was then cancelled, that is why."""
    return run.tags.get(EXPIRED_TAG) == run.run_id


def mark_expired(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Put on record that the run waited too long; to be done before it is cancelled."""
    instance.add_run_tags(run.run_id, {EXPIRED_TAG: run.run_id})


def waited_too_long(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Return whether a run that is about to begin left the queue later than its job allows.

    One that never was in the queue (`dagster job execute`) has not waited.
    """
    allowed = expires_after(run)
    record = instance.get_run_record_by_id(run.run_id)
    if allowed is None or record is None or datetime.now(UTC) - record.create_timestamp <= allowed:
        return False
    moments = instance.get_run_stats(run.run_id)
    queued, left = moments.enqueued_time, moments.launch_time
    return queued is not None and left is not None and timedelta(seconds=left - queued) > allowed
