"""Reads what became of the batches that were queued on a day of the office's calendar.

A batch's day is the one on which it was queued (made, where it never was), as in the report of transfers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import BigInteger, ColumnElement, Date, cast, func, select
from sqlalchemy.orm import Session

from seedtrust_ops.tables import BatchLease, HuntingtonBatch, HuntingtonTransaction

BATCHES_SHOWN = 50
GONE = ("submitted", "completed")
"""Statuses of transactions whose money has left and has not come back."""
OPEN = ("pending", "processing")


@dataclass(frozen=True)
class BatchOfDay:
    """One batch: its transactions by what became of them, money in cents, times by the office's wall clock.

    `run_id` is the run that had it last, None where none of ours ever did.
    """

    batch_id: int
    status: str
    queued_at: datetime
    finished_at: datetime | None
    transactions: int
    amount_cents: int
    gone: int
    gone_cents: int
    failed: int
    returned: int
    still_open: int
    run_id: str | None


@dataclass(frozen=True)
class StatusOfDay:
    """How many of the day's transactions have a status, and over how many cents."""

    status: str
    transactions: int
    amount_cents: int


@dataclass(frozen=True)
class TransferDay:
    """A day: all its transactions by status, how many batches there are, and the first of them, troubled ones first."""

    day: date
    batches: int
    shown: Sequence[BatchOfDay]
    by_status: Sequence[StatusOfDay]

    @property
    def transactions(self) -> int:
        """How many transactions the day's batches have."""
        return sum(one.transactions for one in self.by_status)

    @property
    def gone_cents(self) -> int:
        """What has left and has not come back."""
        return sum(one.amount_cents for one in self.by_status if one.status in GONE)


def day_of_batch(zone: str) -> ColumnElement[date]:
    """Return the day of a batch by the clock of `zone`, as a column."""
    return cast(func.timezone(zone, _moment()), Date)


def read_day(session: Session, day: date, zone: str) -> TransferDay:
    """Return the batches of `day` by the clock of `zone`."""
    by_status = session.execute(
        select(HuntingtonTransaction.status, func.count(), func.sum(HuntingtonTransaction.amount_cents))
        .join(HuntingtonBatch, HuntingtonBatch.id == HuntingtonTransaction.batch_id)
        .where(day_of_batch(zone) == day)
        .group_by(HuntingtonTransaction.status)
        .order_by(HuntingtonTransaction.status)
    )
    batches = session.scalars(select(func.count()).select_from(HuntingtonBatch).where(day_of_batch(zone) == day)).one()
    return TransferDay(
        day=day,
        batches=batches,
        shown=_batches(session, day, zone),
        by_status=[StatusOfDay(status, count, int(cents)) for status, count, cents in by_status],
    )


def _batches(session: Session, day: date, zone: str) -> list[BatchOfDay]:
    status, cents = HuntingtonTransaction.status, func.sum(HuntingtonTransaction.amount_cents)
    troubled = func.count().filter(status.in_(("failed", "returned", *OPEN)))
    rows = session.execute(
        select(
            HuntingtonBatch.id.label("batch_id"),
            HuntingtonBatch.status,
            func.timezone(zone, _moment()).label("queued_at"),
            func.timezone(zone, HuntingtonBatch.finished_at).label("finished_at"),
            func.count(HuntingtonTransaction.id).label("transactions"),
            cast(func.coalesce(cents, 0), BigInteger).label("amount_cents"),
            func.count().filter(status.in_(GONE)).label("gone"),
            cast(func.coalesce(cents.filter(status.in_(GONE)), 0), BigInteger).label("gone_cents"),
            func.count().filter(status == "failed").label("failed"),
            func.count().filter(status == "returned").label("returned"),
            func.count().filter(status.in_(OPEN)).label("still_open"),
            BatchLease.holder.label("run_id"),
        )
        .outerjoin(HuntingtonTransaction, HuntingtonTransaction.batch_id == HuntingtonBatch.id)
        .outerjoin(BatchLease, BatchLease.batch_id == HuntingtonBatch.id)
        .where(day_of_batch(zone) == day)
        .group_by(HuntingtonBatch.id, BatchLease.holder)
        .order_by(troubled.desc(), HuntingtonBatch.id)
        .limit(BATCHES_SHOWN)
    )
    return [BatchOfDay(**row._mapping) for row in rows]


def _moment() -> ColumnElement[datetime]:
    return func.coalesce(HuntingtonBatch.queued_at, HuntingtonBatch.created_at)
