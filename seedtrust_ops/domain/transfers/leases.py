"""Leases on batches: who may write about a batch, and the fence that keeps a late writer out.

A lease is a token with an expiry. Every write of a worker starts with `lock_lease`; once the lease has
expired or was given to another, that worker can write nothing more.
"""

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, ColumnElement, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from seedtrust_ops.domain.sql_arrays import array_table, in_array
from seedtrust_ops.errors import SeedTrustError, TransientError
from seedtrust_ops.tables import BatchLease, HuntingtonBatch


class LeaseLost(TransientError):
    """This worker's lease has expired or another worker has it; what it did last was not recorded."""


class BatchStatusChanged(SeedTrustError):
    """Somebody changed the batch's status while it was being processed."""


@dataclass(frozen=True)
class Lease:
    """The right to write about one batch; `seconds` is how long it lasts from each renewal."""

    batch_id: int
    token: str
    generation: int
    seconds: float


@dataclass(frozen=True)
class Holder:
    """Who holds a batch, and until when at the latest (UTC)."""

    name: str
    expires_at: datetime


def take_lease(session: Session, batch_id: int, holder: str, seconds: float) -> Lease | Holder:
    """Take the lease on a batch, or say who has it, at once.

    A live lease of the same `holder` (a run that retries its op) is taken over: the new token fences out
    whatever is left of the former try.
    """
    other = _live_holder(session, batch_id)
    if other is not None and other.name != holder:
        return other
    token = uuid.uuid4().hex
    expires_at = func.clock_timestamp() + timedelta(seconds=seconds)
    know_batches(session, [batch_id])
    # Waits for every write that holds the fence, so that none is committed after this lease is taken.
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


def know_batches(session: Session, batch_ids: Collection[int]) -> None:
    """Give batches that never had a lease a row that nobody holds: what a worker without leases did is now settled."""
    wanted = array_table("wanted", [("batch_id", BigInteger())], [(batch_id,) for batch_id in batch_ids])
    session.execute(
        insert(BatchLease)
        .from_select(
            ["batch_id", "holder", "generation", "expires_at"],
            select(wanted.c.batch_id, literal("nobody"), literal(0), func.clock_timestamp()),
        )
        .on_conflict_do_nothing()
    )


def _live_holder(session: Session, batch_id: int) -> Holder | None:
    row = session.execute(
        select(BatchLease.holder, BatchLease.expires_at).where(BatchLease.batch_id == batch_id, is_live())
    ).first()
    return Holder(row.holder, row.expires_at) if row is not None else None


def is_live() -> ColumnElement[bool]:
    """Return the SQL condition that a lease row is held and has not expired."""
    return BatchLease.token.is_not(None) & (BatchLease.expires_at > func.clock_timestamp())


def lock_lease(session: Session, lease: Lease) -> None:
    """Make sure, until this transaction ends, that the lease is ours; the first act of every write.

    The lock on the lease's row makes a worker that wants to take the batch over wait for our commit, and lets
    our own renewal through.

    Raises:
        LeaseLost: when it is no longer ours.
    """
    held = session.execute(
        select(BatchLease.batch_id)
        .where(BatchLease.batch_id == lease.batch_id, BatchLease.token == lease.token, is_live())
        .with_for_update(read=True, key_share=True)
    ).first()
    if held is None:
        raise lease_lost(lease)


def lease_lost(lease: Lease) -> LeaseLost:
    """Return the error that says that `lease` is no longer its worker's."""
    return LeaseLost(
        f"The lease on batch {lease.batch_id} has expired or another worker took it over, so this worker "
        "stopped writing. Nothing is lost: whoever has the batch now asks the bank about what is open."
    )


def require_processing(session: Session, lease: Lease) -> None:
    """Make sure that nobody took the batch out of `processing` (put it on hold, for one).

    Raises:
        BatchStatusChanged: naming the status it has now.
    """
    status = session.scalar(select(HuntingtonBatch.status).where(HuntingtonBatch.id == lease.batch_id))
    if status != "processing":
        raise BatchStatusChanged(
            f"Batch {lease.batch_id} was set to '{status}' while it was being processed. Sending stopped; what "
            "was not sent stays pending. Queue the batch again to go on."
        )


def renew_lease(session: Session, lease: Lease) -> None:
    """Start the lease's time anew.

    Raises:
        LeaseLost: when it is no longer ours.
    """
    renewed = session.execute(
        update(BatchLease)
        .where(BatchLease.batch_id == lease.batch_id, BatchLease.token == lease.token, is_live())
        .values(expires_at=func.clock_timestamp() + timedelta(seconds=lease.seconds))
        .returning(BatchLease.batch_id)
    ).first()
    if renewed is None:
        raise lease_lost(lease)


def release_lease(session: Session, lease: Lease) -> None:
    """Give the lease up; nothing happens where another has it by now."""
    session.execute(
        update(BatchLease)
        .where(BatchLease.batch_id == lease.batch_id, BatchLease.token == lease.token)
        .values(token=None, expires_at=func.clock_timestamp())
    )


def break_expired_leases(session: Session) -> list[int]:
    """Take the token from every lease that has expired, so that its late holder can never write again.

    Returns:
        The batches concerned.
    """
    expired = (BatchLease.token.is_not(None), BatchLease.expires_at <= func.clock_timestamp())
    # Waits, as `take_lease` does, for writes that began while the lease was live.
    locked = session.scalars(
        select(BatchLease.batch_id).where(*expired).order_by(BatchLease.batch_id).with_for_update()
    ).all()
    return list(
        session.scalars(
            update(BatchLease)
            .where(in_array(BatchLease.batch_id, locked), *expired)
            .values(token=None)
            .returning(BatchLease.batch_id)
        )
    )
