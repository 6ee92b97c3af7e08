"""Leases on batches: who may write about a batch, and the fence that keeps a late writer out.

A lease is a token with an expiry. Every write of a worker starts with `hold_fence`; once the lease has
expired or was given to another, that worker can write nothing more.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from seedtrust_ops.errors import OperationsError, PassingTrouble
from seedtrust_ops.tables import BatchLease, HuntingtonBatch


class LeaseLost(PassingTrouble):
    """This worker's lease has expired or another worker has it; what it did last was not recorded."""


class BatchTakenBack(OperationsError):
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
    """Take the lease on a batch, or say who has it.

    A live lease of the same `holder` (a run that retries its op) is taken over: the new token fences out
    whatever is left of the former try.
    """
    token = uuid.uuid4().hex
    expires_at = func.clock_timestamp() + timedelta(seconds=seconds)
    statement = insert(BatchLease).values(
        batch_id=batch_id,
        token=token,
        holder=holder,
        expires_at=expires_at,
        acquired_at=func.clock_timestamp(),
    )
    taken = session.execute(
        statement.on_conflict_do_update(
            index_elements=[BatchLease.batch_id],
            set_={
                "token": token,
                "holder": holder,
                "expires_at": expires_at,
                "acquired_at": func.clock_timestamp(),
                "generation": BatchLease.generation + 1,
            },
            where=~is_live() | (BatchLease.holder == holder),
        ).returning(BatchLease.generation)
    ).scalar_one_or_none()
    if taken is not None:
        return Lease(batch_id, token, taken, seconds)
    other = session.execute(
        select(BatchLease.holder, BatchLease.expires_at).where(BatchLease.batch_id == batch_id)
    ).one()
    return Holder(other.holder, other.expires_at)


def is_live() -> ColumnElement[bool]:
    """Return the SQL condition that a lease row is held and has not expired."""
    return BatchLease.token.is_not(None) & (BatchLease.expires_at > func.clock_timestamp())


def hold_fence(session: Session, lease: Lease) -> None:
    """Make sure, until this transaction ends, that the lease is ours; the first act of every write.

    The share lock on the lease's row makes a worker that wants to take the batch over wait for our commit.

    Raises:
        LeaseLost: when it is no longer ours.
    """
    held = session.execute(
        select(BatchLease.batch_id)
        .where(BatchLease.batch_id == lease.batch_id, BatchLease.token == lease.token, is_live())
        .with_for_update(read=True)
    ).first()
    if held is None:
        raise _lost(lease)


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(
        f"The lease on batch {lease.batch_id} has expired or another worker took it over, so this worker "
        "stopped writing. Nothing is lost: whoever has the batch now asks the bank about what is open."
    )


def require_processing(session: Session, lease: Lease) -> None:
    """Make sure that nobody took the batch out of `processing` (put it on hold, for one).

    Raises:
        BatchTakenBack: naming the status it has now.
    """
    status = session.scalar(select(HuntingtonBatch.status).where(HuntingtonBatch.id == lease.batch_id))
    if status != "processing":
        raise BatchTakenBack(
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
        raise _lost(lease)


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
    return list(
        session.scalars(
            update(BatchLease)
            .where(BatchLease.token.is_not(None), BatchLease.expires_at <= func.clock_timestamp())
            .values(token=None)
            .returning(BatchLease.batch_id)
        )
    )
