"""Leases on batches: which worker may write to a batch, and the fence that blocks a late writer.

A lease is a token with an expiry. Every write by a worker starts with `lock_lease`; once the lease has expired or
another worker has acquired it, the previous worker can write nothing more.
See docs/decisions/leases-and-fencing.md.
"""

import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, ColumnElement, SQLColumnExpression, exists, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from seedtrust_ops.domain.sql_arrays import array_table, in_array
from seedtrust_ops.errors import SeedTrustError, TransientError
from seedtrust_ops.tables import BatchLease, HuntingtonBatch

WasCanceledByPerson = Callable[[str], bool]
"""Tells whether a person canceled a run; its argument is the run's id, which is the `holder` of the run's leases.

It raises if that cannot be known now. Then nothing is requeued.
"""


class LeaseLost(TransientError):
    """This worker's lease has expired or another worker holds it; its last write was not recorded."""


class BatchStatusChanged(SeedTrustError):
    """Somebody changed the batch's status while it was being processed."""


@dataclass(frozen=True)
class Lease:
    """The right to write to one batch; `seconds` is how long it lasts after each renewal."""

    batch_id: int
    token: str
    generation: int
    seconds: float


@dataclass(frozen=True)
class LeaseHolder:
    """The worker that holds a batch, and when its lease expires unless renewed (UTC)."""

    name: str
    expires_at: datetime


def acquire_lease(session: Session, batch_id: int, holder: str, seconds: float) -> Lease | LeaseHolder:
    """Acquire the lease on a batch, or return its current holder, without waiting for it.

    A live lease of the same `holder` (a run that retries its op) is taken over: the new token fences out whatever is
    left of the previous try.
    """
    other = _live_holder(session, batch_id)
    if other is not None and other.name != holder:
        return other
    token = uuid.uuid4().hex
    expires_at = func.clock_timestamp() + timedelta(seconds=seconds)
    ensure_lease_rows(session, [batch_id])
    # Waits for every write that holds the fence, so that none is committed after this lease is acquired.
    session.execute(select(BatchLease.batch_id).where(BatchLease.batch_id == batch_id).with_for_update())
    other = _live_holder(session, batch_id)
    if other is not None and other.name != holder:
        return other
    generation = session.scalars(
        update(BatchLease)
        .where(BatchLease.batch_id == batch_id)
        .values(
            token=token,
            holder=holder,
            expires_at=expires_at,
            acquired_at=func.clock_timestamp(),
            generation=BatchLease.generation + 1,
        )
        .returning(BatchLease.generation)
    ).one()
    return Lease(batch_id, token, generation, seconds)


def ensure_lease_rows(session: Session, batch_ids: Collection[int]) -> None:
    """Insert a lease row without a holder for batches that never had one: this marks them as taken over from legacy."""
    wanted = array_table("wanted", [("batch_id", BigInteger())], [(batch_id,) for batch_id in batch_ids])
    session.execute(
        insert(BatchLease)
        .from_select(
            ["batch_id", "holder", "generation", "expires_at"],
            select(wanted.c.batch_id, literal("nobody"), literal(0), func.clock_timestamp()),
        )
        .on_conflict_do_nothing()
    )


def _live_holder(session: Session, batch_id: int) -> LeaseHolder | None:
    row = session.execute(
        select(BatchLease.holder, BatchLease.expires_at).where(BatchLease.batch_id == batch_id, is_live())
    ).first()
    return LeaseHolder(row.holder, row.expires_at) if row is not None else None


def is_live() -> ColumnElement[bool]:
    """Return the SQL condition that a lease row is held and has not expired."""
    return BatchLease.token.is_not(None) & (BatchLease.expires_at > func.clock_timestamp())


def has_live_lease(batch_id: SQLColumnExpression[int]) -> ColumnElement[bool]:
    """Return the SQL condition that a worker holds the batch with this id."""
    return exists().where(BatchLease.batch_id == batch_id, is_live())


def lock_lease(session: Session, lease: Lease) -> None:
    """Verify that we hold the lease, and keep it until this transaction ends; the first step of every write.

    The lock on the lease row makes a worker that wants to take the batch over wait for our commit, but does not block
    our own renewal.

    Raises:
        LeaseLost: if we no longer hold it.
    """
    held = session.execute(
        select(BatchLease.batch_id)
        .where(BatchLease.batch_id == lease.batch_id, BatchLease.token == lease.token, is_live())
        .with_for_update(read=True, key_share=True)
    ).first()
    if held is None:
        raise lease_lost_error(lease)


def lease_lost_error(lease: Lease) -> LeaseLost:
    """Return the error for a worker that no longer holds `lease`."""
    return LeaseLost(
        f"The lease on batch {lease.batch_id} expired or another worker took it over. This worker stopped writing. "
        "Nothing is lost: the next worker on the batch asks the bank about its open transactions."
    )


def require_processing(session: Session, lease: Lease) -> None:
    """Verify that the batch is still `processing` (that nobody has put it on hold, for example).

    Raises:
        BatchStatusChanged: if it has another status; the message names it.
    """
    status = session.scalar(select(HuntingtonBatch.status).where(HuntingtonBatch.id == lease.batch_id))
    if status != "processing":
        raise BatchStatusChanged(
            f"Batch {lease.batch_id} was set to '{status}' while it was being processed. Sending stopped; unsent "
            "transactions stay pending. Queue the batch again to continue."
        )


def renew_lease(session: Session, lease: Lease) -> None:
    """Extend the lease by its full duration from now.

    Raises:
        LeaseLost: if we no longer hold it.
    """
    renewed = session.execute(
        update(BatchLease)
        .where(BatchLease.batch_id == lease.batch_id, BatchLease.token == lease.token, is_live())
        .values(expires_at=func.clock_timestamp() + timedelta(seconds=lease.seconds))
        .returning(BatchLease.batch_id)
    ).first()
    if renewed is None:
        raise lease_lost_error(lease)


def release_lease(session: Session, lease: Lease) -> None:
    """Release the lease; has no effect if another worker holds it by now."""
    session.execute(
        update(BatchLease)
        .where(BatchLease.batch_id == lease.batch_id, BatchLease.token == lease.token)
        .values(token=None, expires_at=func.clock_timestamp())
    )


def revoke_expired_leases(session: Session) -> list[int]:
    """Remove the token from every expired lease, so that its late holder can never write again.

    Those of batches that another application holds locked wait for the next run.

    Returns:
        The batches of the revoked leases.
    """
    expired = (BatchLease.token.is_not(None), BatchLease.expires_at <= func.clock_timestamp())
    batches = session.scalars(
        select(HuntingtonBatch.id)
        .join(BatchLease, BatchLease.batch_id == HuntingtonBatch.id)
        .where(*expired)
        .order_by(HuntingtonBatch.id)
        .with_for_update(of=HuntingtonBatch, skip_locked=True)
    ).all()
    # Waits, as `acquire_lease` does, for writes that started while the lease was live.
    locked = session.scalars(
        select(BatchLease.batch_id)
        .where(in_array(BatchLease.batch_id, batches), *expired)
        .order_by(BatchLease.batch_id)
        .with_for_update()
    ).all()
    return list(
        session.scalars(
            update(BatchLease)
            .where(in_array(BatchLease.batch_id, locked), *expired)
            .values(token=None)
            .returning(BatchLease.batch_id)
        )
    )
