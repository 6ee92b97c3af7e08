"""Puts a batch into the queue for the bank, when a person says so; whatever can't be sent from there is refused.

How a queued batch is found is `batches`', how it is claimed `claiming`'s. It reads and writes the platform's tables
alone, so that the platform's applications can call it under their own database role.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.transfers.batch_claim import LARGEST_ID, UnknownBatch
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.tables import HuntingtonBatch, HuntingtonTransaction

QUEUEABLE = ("draft", "held", "failed")
"""`failed` is one that was given up with transactions still pending, as the legacy worker did."""


class BatchNotQueueable(SeedTrustError):
    """The batch can't be put into the queue as it is; `status` is what it has instead."""

    def __init__(self, sentence: str, batch_id: int, status: str) -> None:
        super().__init__(sentence)
        self.batch_id = batch_id
        self.status = status


@dataclass(frozen=True)
class BatchInQueue:
    """A batch that waits to be sent: since when (UTC), and what of it is pending."""

    batch_id: int
    queued_at: datetime
    transactions: int
    amount_cents: int


def queue_batch(session: Session, batch_id: int) -> BatchInQueue:
    """Queue a batch that is a draft, held, or given up; a worker takes it as soon as the caller commits.

    A batch that is queued already stays as it is. `started_at` stays too: by it `claim_batch` knows a batch that a
    worker without a lease began, of whose pending transactions the bank is asked before any is sent.

    Args:
        session: a session in the caller's transaction; the batch's row is locked until its end.
        batch_id: which batch.

    Raises:
        UnknownBatch: when there is no such batch.
        BatchNotQueueable: when it is being sent or finished, or nothing of it is pending.
    """
    batch = None
    if 0 < batch_id <= LARGEST_ID:
        query = select(HuntingtonBatch.status, HuntingtonBatch.queued_at).where(HuntingtonBatch.id == batch_id)
        batch = session.execute(query.with_for_update()).one_or_none()
    if batch is None:
        raise UnknownBatch(f"There is no batch {batch_id}. Nothing was queued.")
    pending, amount_cents = session.execute(
        select(func.count(), func.coalesce(func.sum(HuntingtonTransaction.amount_cents), 0)).where(
            HuntingtonTransaction.batch_id == batch_id, HuntingtonTransaction.status == "pending"
        )
    ).one()
    queued_at = batch.queued_at
    if batch.status != "queued" or queued_at is None:
        _refuse_what_can_not_be_queued(batch_id, batch.status, pending)
        queued_at = session.scalars(
            update(HuntingtonBatch)
            .where(HuntingtonBatch.id == batch_id)
            .values(status="queued", queued_at=func.now(), finished_at=None, error=None)
            .returning(HuntingtonBatch.queued_at)
        ).one()
    return BatchInQueue(batch_id, queued_at, pending, int(amount_cents))


def _refuse_what_can_not_be_queued(batch_id: int, status: str, pending: int) -> None:
    if status == "processing":
        why = "is being sent already. Nothing needs to be done: what a worker leaves undone is taken up by itself."
    elif status not in (*QUEUEABLE, "queued"):
        why = f"is '{status}': the bank has its transfers. Put further payments into a batch of their own."
    elif pending == 0:
        why = (
            "has no pending transaction, so there is nothing to send. Put the payments that are still to be made into "
            "it, or into a batch of their own where the bank has refused them."
        )
    else:
        return
    raise BatchNotQueueable(f"Batch {batch_id} was not queued: it {why}", batch_id, status)
