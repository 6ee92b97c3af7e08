"""Cancels runs that have been queued longer than their job's limit, so that no outdated work is done.

They are tagged before they are canceled, so that JobRun can distinguish them from runs that a person canceled. A run
that has left the queue is never touched here: `orchestration/executor` handles it.
See docs/decisions/queue-limits.md.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg

from seedtrust_ops.orchestration.expiration_tags import expires_after, mark_expired

GRACE = timedelta(seconds=5)
"""A run that left the queue just in time may still be recorded as queued for this long, so it is not canceled while it
starts. A run that leaves the queue later ends without doing work (`orchestration/executor`)."""
MIN_EXPIRY = timedelta(seconds=1)
RUNS_PER_PAGE = 500
MAX_CANCELED_PER_TICK = 200
"""A cancellation takes a few statements each; the next tick cancels the rest."""


def cancel_expired_runs(instance: dg.DagsterInstance) -> int:
    """Cancel the expired runs; return how many.

    If a tick crashes between tagging and canceling a run, the next one cancels it.
    """
    now = datetime.now(UTC)
    canceled, cursor = 0, None
    while True:
        page = instance.get_run_records(
            dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED], created_before=now - MIN_EXPIRY - GRACE),
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
    limit = expires_after(record.dagster_run)
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
