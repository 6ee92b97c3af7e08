"""Claims a queued batch for a worker, and takes over batches that the legacy worker (which has no leases) left.

What happens to a batch after the claim is in `batch_lifecycle`; the lease itself is in `leases`.
See docs/decisions/leases-and-fencing.md and docs/decisions/legacy-takeover.md.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.domain.transfers.batch_lifecycle import FINISHED_STATUSES
from seedtrust_ops.domain.transfers.leases import Lease, LeaseHolder, acquire_lease, ensure_lease_rows
from seedtrust_ops.domain.transfers.sending_context import BatchRun
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.tables import BatchLease, HuntingtonBatch, HuntingtonTransaction

MAX_ID = 2**63 - 1
"""The maximum of PostgreSQL's bigint; a query with a larger number, which a person may type, is an error."""


class UnknownBatch(SeedTrustError):
    """No batch has this id."""


class BatchNotQueued(SeedTrustError):
    """The batch is in a status that cannot be sent."""


@dataclass(frozen=True)
class AlreadyFinished:
    """The batch needs no work: it was finished before this worker claimed it."""

    status: str
    finished_at: datetime | None


def claim_batch(session: Session, run: BatchRun) -> Lease | LeaseHolder | AlreadyFinished:
    """Claim a queued batch, or one whose worker crashed, for the run.

    A batch that the legacy worker (which has no leases) left in `processing` is taken over if it has been unchanged for
    the grace period of unknown keys.

    Args:
        session: a session with its own transaction.
        run: the run that claims its batch.

    Returns:
        The lease, the current holder, or that the batch is already finished. If another worker finished it since the
        run was requested, that is not an error: two runs were requested and the other one was first.

    Raises:
        UnknownBatch: if there is no such batch.
        BatchNotQueued: if it has another status; the message names it.
    """
    batch_id, quiet_seconds = run.batch_id, run.options.unknown_grace_seconds
    batch = None
    if batch_id <= MAX_ID:
        batch = session.scalar(select(HuntingtonBatch).where(HuntingtonBatch.id == batch_id).with_for_update())
    if batch is None:
        raise UnknownBatch(f"There is no batch {batch_id}. Nothing was sent. Check the batch id in the run's config.")
    if batch.status == "completed" or (
        batch.status in FINISHED_STATUSES and batch.finished_at is not None and batch.finished_at >= run.requested_at
    ):
        return AlreadyFinished(batch.status, batch.finished_at)
    if batch.status not in ("queued", "processing"):
        raise BatchNotQueued(
            f"Batch {batch_id} is '{batch.status}', and only a queued batch can be sent. Nothing was sent. "
            "Queue the batch if it should be sent."
        )
    if batch.status == "queued" and _was_started_by_legacy_worker(session, batch):
        require_bank_inquiry(session, [batch_id])
    held_by_legacy = select(HuntingtonBatch.id).where(HuntingtonBatch.id == batch_id, is_held_by_legacy_worker())
    if session.scalar(held_by_legacy) and not take_over_legacy_batches(session, quiet_seconds, batch_id):
        raise BatchNotQueued(
            f"Batch {batch_id} is 'processing' by a worker that holds no lease (the legacy worker), and changed within "
            f"the last {quiet_seconds:g} seconds. Nothing was sent. Try again after it has been unchanged for that "
            "long."
        )
    lease = acquire_lease(session, batch_id, run.holder, run.options.lease_seconds)
    if isinstance(lease, Lease):
        batch.status = "processing"
        batch.started_at = batch.started_at or func.now()
        batch.finished_at = None
        batch.error = None
    return lease


def _was_started_by_legacy_worker(session: Session, batch: HuntingtonBatch) -> bool:
    """Return whether the legacy worker started this queued batch, before our worker did or after ours released it."""
    lease = session.get(BatchLease, batch.id)
    return batch.started_at is not None and (lease is None or lease.acquired_at < batch.started_at)


def is_held_by_legacy_worker() -> ColumnElement[bool]:
    """Return the SQL condition that a `processing` batch is held by the legacy worker, or was when that crashed.

    Our workers leave no pending transaction in a batch that stays `processing`, unless they crash, and then the lease
    has a token.
    """
    lease = exists().where(BatchLease.batch_id == HuntingtonBatch.id)
    pending = exists().where(
        HuntingtonTransaction.batch_id == HuntingtonBatch.id, HuntingtonTransaction.status == "pending"
    )
    return and_(
        HuntingtonBatch.status == "processing",
        or_(~lease, and_(~lease.where(BatchLease.token.is_not(None)), pending)),
    )


def take_over_legacy_batches(session: Session, quiet_seconds: float, only_batch_id: int | None = None) -> list[int]:
    """Take over batches that the legacy worker (which has no leases) left in `processing`.

    It is unknown which of their pending transactions that worker had sent when it crashed, so all of them become
    `processing`: the bank is asked before any is sent again.

    Returns:
        The batches that were taken over: those unchanged for `quiet_seconds`.
    """
    last_change = (
        select(func.max(HuntingtonTransaction.updated_at))
        .where(HuntingtonTransaction.batch_id == HuntingtonBatch.id)
        .scalar_subquery()
    )
    query = select(HuntingtonBatch.id).where(
        is_held_by_legacy_worker(),
        func.greatest(HuntingtonBatch.created_at, HuntingtonBatch.started_at, last_change)
        <= func.clock_timestamp() - timedelta(seconds=quiet_seconds),
    )
    if only_batch_id is not None:
        query = query.where(HuntingtonBatch.id == only_batch_id)
    batch_ids = list(session.scalars(query.order_by(HuntingtonBatch.id).with_for_update()))
    require_bank_inquiry(session, batch_ids)
    return batch_ids


def require_bank_inquiry(session: Session, batch_ids: Collection[int]) -> None:
    """Set the batches' pending transactions to `processing`, so that the bank is asked before any of them is sent."""
    ensure_lease_rows(session, batch_ids)
    session.execute(
        update(HuntingtonTransaction)
        .where(in_array(HuntingtonTransaction.batch_id, batch_ids), HuntingtonTransaction.status == "pending")
        .values(status="processing")
    )
