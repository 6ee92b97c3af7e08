"""The batch status transitions after the claim: returned to the queue, requeued by auto-heal, and finished.

The claim is in `batch_claim`; the status transitions of single transactions are in `status_transitions`.
See docs/decisions/batch-runs.md.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import case, exists, func, or_, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.domain.transfers.leases import Lease, is_live, lock_lease
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.tables import BatchLease, HuntingtonBatch, HuntingtonTransaction

FINISHED_STATUSES = ("completed", "completed_with_errors", "failed")
OPEN_STATUSES = ("pending", "processing")


class AllTransfersFailed(SeedTrustError):
    """The batch was processed, and all of its transfers failed."""


@dataclass(frozen=True)
class QueuedBatch:
    """A batch in the queue; `generation` counts its previous claims, and `last_holder` made the latest one."""

    batch_id: int
    priority: int
    queued_at: datetime | None
    generation: int
    last_holder: str | None
    lease_ended_at: datetime | None


def list_queued_batches(session: Session) -> list[QueuedBatch]:
    """Return the batches in the queue: highest priority first, then oldest first."""
    rows = session.execute(
        select(
            HuntingtonBatch.id,
            HuntingtonBatch.priority,
            HuntingtonBatch.queued_at,
            func.coalesce(BatchLease.generation, 0),
            BatchLease.holder,
            BatchLease.expires_at,
        )
        .outerjoin(BatchLease, BatchLease.batch_id == HuntingtonBatch.id)
        .where(HuntingtonBatch.status == "queued")
        .order_by(HuntingtonBatch.priority.desc(), HuntingtonBatch.queued_at, HuntingtonBatch.id)
    )
    return [QueuedBatch(*row) for row in rows]


def requeue_abandoned_batches(session: Session, batch_ids: Collection[int]) -> list[int]:
    """Requeue the batches whose worker crashed before it had sent everything: they still have pending transactions.

    Args:
        session: a session with its own transaction.
        batch_ids: the batches whose leases were revoked in this transaction.

    Returns:
        The batches that were requeued.
    """
    abandoned = (
        select(HuntingtonBatch.id)
        .join(BatchLease, BatchLease.batch_id == HuntingtonBatch.id)
        .where(
            in_array(HuntingtonBatch.id, batch_ids),
            HuntingtonBatch.status == "processing",
            ~is_live(),
            exists().where(
                HuntingtonTransaction.batch_id == HuntingtonBatch.id,
                HuntingtonTransaction.status == "pending",
            ),
        )
        .order_by(HuntingtonBatch.id)
        .with_for_update(of=HuntingtonBatch)
    )
    locked = session.scalars(abandoned).all()
    # Checked again now that the rows are locked: a worker may have claimed one in between.
    live = select(BatchLease.batch_id).where(in_array(BatchLease.batch_id, locked), is_live())
    return sorted(
        session.scalars(
            update(HuntingtonBatch)
            .where(in_array(HuntingtonBatch.id, locked), HuntingtonBatch.id.not_in(live))
            .values(status="queued")
            .returning(HuntingtonBatch.id)
        )
    )


def requeue_batches(session: Session, batch_ids: Collection[int]) -> list[int]:
    """Requeue the batches in which auto-heal set transactions back to `pending`; held and draft batches stay.

    `queued_at` is the start of the wait, so it changes only if the batch had been finished. The caller holds the row
    locks and has made sure that no worker has a lease on the batches.
    """
    finished = HuntingtonBatch.status.in_(FINISHED_STATUSES)
    return sorted(
        session.scalars(
            update(HuntingtonBatch)
            .where(in_array(HuntingtonBatch.id, batch_ids), or_(finished, HuntingtonBatch.status == "processing"))
            .values(
                status="queued",
                queued_at=case((finished, func.now()), else_=HuntingtonBatch.queued_at),
                finished_at=None,
                error=None,
            )
            .returning(HuntingtonBatch.id)
        )
    )


def return_to_queue(session: Session, lease: Lease, error: str | None) -> None:
    """Return a batch that was not completely sent to the queue, and store the reason in its `error`.

    `queued_at` stays: it is the start of the wait. A batch with no pending transaction left stays `processing` until
    the status of its open transactions is known.
    """
    session.execute(select(HuntingtonBatch.id).where(HuntingtonBatch.id == lease.batch_id).with_for_update())
    lock_lease(session, lease)
    session.execute(
        update(HuntingtonBatch)
        .where(
            HuntingtonBatch.id == lease.batch_id,
            HuntingtonBatch.status == "processing",
            exists().where(HuntingtonTransaction.batch_id == lease.batch_id, HuntingtonTransaction.status == "pending"),
        )
        .values(status="queued", error=error)
    )


def list_batches_ready_to_finish(session: Session) -> list[int]:
    """Return the `processing` batches that no worker holds and that have no open transaction left."""
    return list(
        session.scalars(
            select(HuntingtonBatch.id)
            .where(
                HuntingtonBatch.status == "processing",
                ~exists().where(BatchLease.batch_id == HuntingtonBatch.id, is_live()),
                ~exists().where(
                    HuntingtonTransaction.batch_id == HuntingtonBatch.id,
                    HuntingtonTransaction.status.in_(OPEN_STATUSES),
                ),
            )
            .order_by(HuntingtonBatch.id)
            .with_for_update()
        )
    )


def finish_batches(session: Session, batch_ids: Collection[int]) -> dict[int, str]:
    """Set the final status of every batch whose transactions are all settled or submitted.

    A batch that was already finished is evaluated again, because the bank may have changed a status (an ACH return);
    its `finished_at` stays. A batch without transactions is `failed`.

    Returns:
        The batches whose status or error changed, with their status.
    """
    succeeded = func.count().filter(HuntingtonTransaction.status.in_(("submitted", "completed")))
    failed = func.count().filter(HuntingtonTransaction.status.in_(("failed", "returned")))
    still_open = func.count().filter(HuntingtonTransaction.status.in_(OPEN_STATUSES))
    totals = (
        select(
            HuntingtonBatch.id.label("batch_id"),
            succeeded.label("succeeded"),
            failed.label("failed"),
            still_open.label("still_open"),
        )
        .outerjoin(HuntingtonTransaction, HuntingtonTransaction.batch_id == HuntingtonBatch.id)
        .where(in_array(HuntingtonBatch.id, batch_ids))
        .group_by(HuntingtonBatch.id)
        .subquery()
    )
    status = case(
        (totals.c.succeeded == 0, "failed"),
        (totals.c.failed > 0, "completed_with_errors"),
        else_="completed",
    )
    error = case(
        (totals.c.succeeded + totals.c.failed == 0, "The batch has no transactions."),
        (totals.c.failed > 0, func.concat(totals.c.failed, " of its transfers did not go through.")),
        else_=None,
    )
    rows = session.execute(
        update(HuntingtonBatch)
        .where(
            HuntingtonBatch.id == totals.c.batch_id,
            totals.c.still_open == 0,
            HuntingtonBatch.status.in_(("processing", *FINISHED_STATUSES)),
            or_(
                HuntingtonBatch.status != "processing",
                ~exists().where(BatchLease.batch_id == HuntingtonBatch.id, is_live()),
            ),
            or_(HuntingtonBatch.status != status, HuntingtonBatch.error.is_distinct_from(error)),
        )
        .values(status=status, error=error, finished_at=func.coalesce(HuntingtonBatch.finished_at, func.now()))
        .returning(HuntingtonBatch.id, HuntingtonBatch.status)
    )
    return {row.id: row.status for row in rows}
