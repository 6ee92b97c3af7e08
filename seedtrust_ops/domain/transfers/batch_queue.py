"""Queues a batch for sending when a person requests it; a batch that cannot be sent is rejected.

Listing queued batches is in `batch_lifecycle`, the claim in `batch_claim`. This module uses only the platform's tables,
so that the platform's applications can call it under their own database role.
See docs/decisions/ops-client.md.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.transfers.batch_claim import MAX_ID, UnknownBatch
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.tables import HuntingtonBatch, HuntingtonTransaction

QUEUEABLE_STATUSES = ("draft", "held", "failed")
"""`failed` covers batches that the legacy worker abandoned with transactions still pending."""


class BatchNotQueueable(SeedTrustError):
    """The batch cannot be queued in its current state; `status` is its current status."""

    def __init__(self, message: str, batch_id: int, status: str) -> None:
        super().__init__(message)
        self.batch_id = batch_id
        self.status = status


@dataclass(frozen=True)
class BatchInQueue:
    """A batch in the queue: when it was queued (UTC), and its pending transactions and cents."""

    batch_id: int
    queued_at: datetime
    transactions: int
    amount_cents: int


def queue_batch(session: Session, batch_id: int) -> BatchInQueue:
    """Queue a draft, held or abandoned batch; a worker claims it as soon as the caller commits.

    A batch that is already queued stays as it is. `started_at` is kept: from it, `claim_batch` recognizes a batch that
    the legacy worker started, and asks the bank about its pending transactions before it sends any.

    Args:
        session: a session in the caller's transaction; the batch's row is locked until that ends.
        batch_id: the batch to queue.

    Raises:
        UnknownBatch: if there is no such batch.
        BatchNotQueueable: if it is processing or finished, or has no pending transaction.
    """
    batch = None
    if 0 < batch_id <= MAX_ID:
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
        _require_queueable(batch_id, batch.status, pending)
        queued_at = session.scalars(
            update(HuntingtonBatch)
            .where(HuntingtonBatch.id == batch_id)
            .values(status="queued", queued_at=func.now(), finished_at=None, error=None)
            .returning(HuntingtonBatch.queued_at)
        ).one()
    return BatchInQueue(batch_id, queued_at, pending, int(amount_cents))


def _require_queueable(batch_id: int, status: str, pending: int) -> None:
    if status == "processing":
        why = "is already being sent. No action is needed: if its worker stops, auto-heal requeues the batch."
    elif status not in (*QUEUEABLE_STATUSES, "queued"):
        why = f"is '{status}': its transfers are at the bank. Put further payments into a new batch."
    elif pending == 0:
        why = (
            "has no pending transaction, so there is nothing to send. Add the payments that are still to be made, or "
            "put them into a new batch if the bank has refused them."
        )
    else:
        return
    raise BatchNotQueueable(f"Batch {batch_id} was not queued: it {why}", batch_id, status)
