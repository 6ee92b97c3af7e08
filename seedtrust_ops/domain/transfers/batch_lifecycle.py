"""A batch's life: waiting in the queue, given back, put back by healing, and finished when all is settled.

How it is claimed is in `claiming`, what happens to its single transactions in `outcomes`.
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

FINISHED = ("completed", "completed_with_errors", "failed")
OPEN = ("pending", "processing")


class AllTransfersFailed(SeedTrustError):
    """The batch was processed and not one of its transfers went through."""


@dataclass(frozen=True)
class QueuedBatch:
    """A batch that waits to be sent; `generation` counts how often it was claimed before, by `last_holder` last."""

    batch_id: int
    priority: int
    queued_at: datetime | None
    generation: int
    last_holder: str | None
    given_back_at: datetime | None


def queued_batches(session: Session) -> list[QueuedBatch]:
    """Return the batches that wait to be sent: highest priority first, then the longest queued."""
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
    """Put those batches back into the queue whose worker died before it had sent all: they still have pending ones.

    Args:
        session: a session in a transaction of its own.
        batch_ids: the batches whose leases were broken in this transaction.

    Returns:
        The batches that were put back.
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
    # Asked again now that the rows are locked: a worker may have claimed one in between.
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
    """Queue the batches again that healing gave pending transactions back to; held and draft ones stay.

    `queued_at` says since when a batch has waited, so it is new only where the batch had been finished. The
    caller holds the rows' locks and knows that no worker has a lease on them.
    """
    finished = HuntingtonBatch.status.in_(FINISHED)
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
    """Put a batch that could not be sent to its end back into the queue, with the reason beside it.

    `queued_at` stays: it says since when the batch has waited. A batch whose transactions were all sent
    stays `processing` until its open ones are known.
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


def unfinished_batches_without_work(session: Session) -> list[int]:
    """Return the batches in `processing` that no worker holds and in which nothing is open any more."""
    return list(
        session.scalars(
            select(HuntingtonBatch.id)
            .where(
                HuntingtonBatch.status == "processing",
                ~exists().where(BatchLease.batch_id == HuntingtonBatch.id, is_live()),
                ~exists().where(
                    HuntingtonTransaction.batch_id == HuntingtonBatch.id,
                    HuntingtonTransaction.status.in_(OPEN),
                ),
            )
            .order_by(HuntingtonBatch.id)
            .with_for_update()
        )
    )


def finish_batches(session: Session, batch_ids: Collection[int]) -> dict[int, str]:
    """Set the status of every batch whose transactions are all settled or submitted.

    A batch that was finished before is judged anew, since the bank may have changed its word (an ACH that
    came back); its `finished_at` stays. A batch without transactions is `failed`.

    Returns:
        The batches whose status or error is new, with their status.
    """
    went_through = func.count().filter(HuntingtonTransaction.status.in_(("submitted", "completed")))
    did_not = func.count().filter(HuntingtonTransaction.status.in_(("failed", "returned")))
    still_open = func.count().filter(HuntingtonTransaction.status.in_(OPEN))
    totals = (
        select(
            HuntingtonBatch.id.label("batch_id"),
            went_through.label("went_through"),
            did_not.label("did_not"),
            still_open.label("still_open"),
        )
        .outerjoin(HuntingtonTransaction, HuntingtonTransaction.batch_id == HuntingtonBatch.id)
        .where(in_array(HuntingtonBatch.id, batch_ids))
        .group_by(HuntingtonBatch.id)
        .subquery()
    )
    status = case(
        (totals.c.went_through == 0, "failed"),
        (totals.c.did_not > 0, "completed_with_errors"),
        else_="completed",
    )
    error = case(
        (totals.c.went_through + totals.c.did_not == 0, "The batch has no transactions."),
        (totals.c.did_not > 0, func.concat(totals.c.did_not, " of its transfers did not go through.")),
        else_=None,
    )
    rows = session.execute(
        update(HuntingtonBatch)
        .where(
            HuntingtonBatch.id == totals.c.batch_id,
            totals.c.still_open == 0,
            HuntingtonBatch.status.in_(("processing", *FINISHED)),
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
