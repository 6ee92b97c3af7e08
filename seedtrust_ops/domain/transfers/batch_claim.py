"""Claims a queued batch for a worker, and takes over batches that a worker without leases (the legacy one) left.

What becomes of a batch that was claimed is in `batches`; the lease itself in `leases`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.domain.transfers.batch_lifecycle import FINISHED
from seedtrust_ops.domain.transfers.leases import Holder, Lease, know_batches, take_lease
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.tables import BatchLease, HuntingtonBatch, HuntingtonTransaction

LARGEST_ID = 2**63 - 1
"""PostgreSQL's bigint; a larger number, such as a person may type, can't even be asked for."""


class UnknownBatch(SeedTrustError):
    """No batch has this id."""


class BatchNotQueued(SeedTrustError):
    """The batch is in a status in which it must not be sent."""


@dataclass(frozen=True)
class AlreadyFinished:
    """The batch needs no work: it was finished before this worker came to it."""

    status: str
    finished_at: datetime | None


def claim_batch(
    session: Session,
    batch_id: int,
    holder: str,
    *,
    lease_seconds: float,
    asked_at: datetime,
    quiet_seconds: float,
) -> Lease | Holder | AlreadyFinished:
    """Claim a queued batch, or one whose worker died, for `holder`.

    Args:
        session: a session in a transaction of its own.
        batch_id: which batch.
        holder: the Dagster run that wants it.
        lease_seconds: how long the lease lasts between renewals.
        asked_at: when this run was asked for (UTC). A batch finished by another worker since then is no
            error: two runs were asked for and the other was first.
        quiet_seconds: how long a batch that a worker without a lease (the legacy one) left in `processing`
            must have been quiet before it is taken over.

    Returns:
        The lease; or who holds the batch; or that it is finished already.

    Raises:
        UnknownBatch: when there is no such batch.
        BatchNotQueued: naming the status that it has instead.
    """
    batch = None
    if batch_id <= LARGEST_ID:
        batch = session.scalar(select(HuntingtonBatch).where(HuntingtonBatch.id == batch_id).with_for_update())
    if batch is None:
        raise UnknownBatch(f"There is no batch {batch_id}. Check the number in the run's config; nothing was sent.")
    if batch.status == "completed" or (
        batch.status in FINISHED and batch.finished_at is not None and batch.finished_at >= asked_at
    ):
        return AlreadyFinished(batch.status, batch.finished_at)
    if batch.status not in ("queued", "processing"):
        raise BatchNotQueued(
            f"Batch {batch_id} is '{batch.status}', and only a queued batch is sent. Nothing was sent. "
            "Queue it (again) if it should be."
        )
    if batch.status == "queued" and _was_begun_by_another(session, batch):
        require_bank_inquiry(session, [batch_id])
    anothers = select(HuntingtonBatch.id).where(HuntingtonBatch.id == batch_id, is_left_by_another())
    if session.scalar(anothers) and not doubt_batches_without_lease(session, quiet_seconds, batch_id):
        raise BatchNotQueued(
            f"Batch {batch_id} is 'processing' in the hands of a worker that holds no lease (the legacy one), "
            f"and was active within the last {quiet_seconds:g} seconds. Nothing was sent; try again when it "
            "has been quiet for that long."
        )
    lease = take_lease(session, batch_id, holder, lease_seconds)
    if isinstance(lease, Lease):
        batch.status = "processing"
        batch.started_at = batch.started_at or func.now()
        batch.finished_at = None
        batch.error = None
    return lease


def _was_begun_by_another(session: Session, batch: HuntingtonBatch) -> bool:
    """Return whether a worker without leases began this queued batch, before ours did or after ours gave it back."""
    lease = session.get(BatchLease, batch.id)
    return batch.started_at is not None and (lease is None or lease.acquired_at < batch.started_at)


def is_left_by_another() -> ColumnElement[bool]:
    """The condition that a batch in `processing` is in the hands of a worker without leases, or was when that died.

    Ours leave nothing pending in a batch that stays `processing`, unless they die, and then their lease has a token.
    """
    lease = exists().where(BatchLease.batch_id == HuntingtonBatch.id)
    pending = exists().where(
        HuntingtonTransaction.batch_id == HuntingtonBatch.id, HuntingtonTransaction.status == "pending"
    )
    return and_(
        HuntingtonBatch.status == "processing",
        or_(~lease, and_(~lease.where(BatchLease.token.is_not(None)), pending)),
    )


def doubt_batches_without_lease(session: Session, quiet_seconds: float, only: int | None = None) -> list[int]:
    """Take over batches that a worker without leases (the legacy one) left in `processing`.

    Nobody knows which of their pending transactions that worker had sent when it died, so all of them
    become `processing`: the bank is asked before any is sent again.

    Returns:
        The batches that were taken over: those quiet for `quiet_seconds`.
    """
    last_change = (
        select(func.max(HuntingtonTransaction.updated_at))
        .where(HuntingtonTransaction.batch_id == HuntingtonBatch.id)
        .scalar_subquery()
    )
    query = select(HuntingtonBatch.id).where(
        is_left_by_another(),
        func.greatest(HuntingtonBatch.created_at, HuntingtonBatch.started_at, last_change)
        <= func.clock_timestamp() - timedelta(seconds=quiet_seconds),
    )
    if only is not None:
        query = query.where(HuntingtonBatch.id == only)
    batch_ids = list(session.scalars(query.order_by(HuntingtonBatch.id).with_for_update()))
    require_bank_inquiry(session, batch_ids)
    return batch_ids


def require_bank_inquiry(session: Session, batch_ids: Collection[int]) -> None:
    """Have the bank asked about all that is pending in the batches before any of it is sent, and know them as ours."""
    know_batches(session, batch_ids)
    session.execute(
        update(HuntingtonTransaction)
        .where(in_array(HuntingtonTransaction.batch_id, batch_ids), HuntingtonTransaction.status == "pending")
        .values(status="processing")
    )
