"""Cancels runs that are queued for longer than their jobs allow, so that nobody gets the work of an hour ago.

JobRun tells them from those that a person cancelled by the tag that they bear before they are cancelled. A run that
has left the queue is never touched here.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg

from seedtrust_ops.orchestration.expiration_tags import expires_after, mark_expired

GRACE = timedelta(seconds=5)
"""A run that left the queue in time, at the last moment, has been on its way for so long when it is looked at here;
one that leaves it later ends by itself (`jobs/expiring`). So no run that may work is ever cancelled while it starts."""
SHORTEST = timedelta(seconds=1)
RUNS_A_PAGE = 500
CANCELLED_A_TICK = 200
"""A cancellation is a handful of statements; what is left over is cancelled by the next tick."""


def cancel_expired_runs(instance: dg.DagsterInstance) -> int:
    """Cancel the runs that have waited too long; return how many.

    A tick that dies between the mark and the cancellation is made up for by the next one.
    """
    now = datetime.now(UTC)
    cancelled, cursor = 0, None
    while True:
        page = instance.get_run_records(
            dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED], created_before=now - SHORTEST - GRACE),
            limit=RUNS_A_PAGE,
            ascending=True,
            cursor=cursor,
        )
        for record in page:
            if _waits_too_long(record, now):
                cancelled += _cancel(instance, record.dagster_run)
                if cancelled == CANCELLED_A_TICK:
                    return cancelled
        if len(page) < RUNS_A_PAGE:
            return cancelled
        cursor = page[-1].dagster_run.run_id


def _waits_too_long(record: dg.RunRecord, now: datetime) -> bool:
    allowed = expires_after(record.dagster_run)
    return allowed is not None and now - record.create_timestamp > allowed + GRACE


def _cancel(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    mark_expired(instance, run)
    again = instance.get_run_by_id(run.run_id)
    if again is None or again.status is not dg.DagsterRunStatus.QUEUED:
        return False
    # Not `run_coordinator.cancel_run`: that would end the run's process where the run has just started.
    instance.report_run_canceling(again, message="The run waited in the queue for longer than its job allows.")
    instance.report_run_canceled(again)
    return True
