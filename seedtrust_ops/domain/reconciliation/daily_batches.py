"""Reads the batches that were queued on a calendar day of the office, and the daily totals of thirty days as a chart.

A batch's day is the day it was queued, or created if it never was, as in the report `huntington_transfers`. What the
bank has for them is in `bank_comparison`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from io import BytesIO

from sqlalchemy import ColumnElement, Date, cast, func, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.sql_ranges import capped_cents, local_time
from seedtrust_ops.domain.transfers.batch_lifecycle import UNFINISHED_STATUSES
from seedtrust_ops.tables import BatchLease, HuntingtonBatch, HuntingtonTransaction

MAX_BATCHES_SHOWN = 50
SENT_STATUSES = ("submitted", "completed")
"""Statuses of transactions whose money was sent and not returned. A control does not share what it controls, so this
list is not the one by which `transfers` finishes a batch."""
CHART_DAYS = 30
SENT_COLOR, RETURNED_COLOR, FAILED_COLOR = "#2f6f8f", "#d9a441", "#c8553d"


@dataclass(frozen=True)
class DailyBatch:
    """One batch: its transactions by result, money in cents, times in the office's local time.

    `run_id` is the run that held it last, or None if no run of this system ever did.
    """

    batch_id: int
    status: str
    queued_at: datetime
    finished_at: datetime | None
    transactions: int
    amount_cents: int
    sent: int
    sent_cents: int
    failed: int
    returned: int
    still_open: int
    run_id: str | None


@dataclass(frozen=True)
class StatusTotal:
    """The number of the day's transactions with a status, and their cents."""

    status: str
    transactions: int
    amount_cents: int


@dataclass(frozen=True)
class DailyTransfers:
    """A day: all transactions by status, the number of batches, and the first batches, those with problems first."""

    day: date
    batches: int
    shown: Sequence[DailyBatch]
    by_status: Sequence[StatusTotal]

    @property
    def transactions(self) -> int:
        """The number of transactions in the day's batches."""
        return sum(one.transactions for one in self.by_status)

    @property
    def sent_cents(self) -> int:
        """Cents sent and not returned."""
        return sum(one.amount_cents for one in self.by_status if one.status in SENT_STATUSES)


def batch_date(zone: str) -> ColumnElement[date]:
    """Return a batch's calendar day in `zone`, as an SQL expression."""
    return cast(local_time(_queued_at(), zone), Date)


def read_day(session: Session, day: date, zone: str) -> DailyTransfers:
    """Return the batches of calendar day `day` in `zone`."""
    by_status = session.execute(
        select(HuntingtonTransaction.status, func.count(), func.sum(HuntingtonTransaction.amount_cents))
        .join(HuntingtonBatch, HuntingtonBatch.id == HuntingtonTransaction.batch_id)
        .where(batch_date(zone) == day)
        .group_by(HuntingtonTransaction.status)
        .order_by(HuntingtonTransaction.status)
    )
    batches = session.scalars(select(func.count()).select_from(HuntingtonBatch).where(batch_date(zone) == day)).one()
    return DailyTransfers(
        day=day,
        batches=batches,
        shown=_batches(session, day, zone),
        by_status=[StatusTotal(status, count, int(cents)) for status, count, cents in by_status],
    )


def _batches(session: Session, day: date, zone: str) -> list[DailyBatch]:
    status, cents = HuntingtonTransaction.status, func.sum(HuntingtonTransaction.amount_cents)
    problems = func.count().filter(status.in_(("failed", "returned", *UNFINISHED_STATUSES)))
    rows = session.execute(
        select(
            HuntingtonBatch.id.label("batch_id"),
            HuntingtonBatch.status,
            local_time(_queued_at(), zone).label("queued_at"),
            local_time(HuntingtonBatch.finished_at, zone).label("finished_at"),
            func.count(HuntingtonTransaction.id).label("transactions"),
            capped_cents(func.coalesce(cents, 0)).label("amount_cents"),
            func.count().filter(status.in_(SENT_STATUSES)).label("sent"),
            capped_cents(func.coalesce(cents.filter(status.in_(SENT_STATUSES)), 0)).label("sent_cents"),
            func.count().filter(status == "failed").label("failed"),
            func.count().filter(status == "returned").label("returned"),
            func.count().filter(status.in_(UNFINISHED_STATUSES)).label("still_open"),
            BatchLease.holder.label("run_id"),
        )
        .outerjoin(HuntingtonTransaction, HuntingtonTransaction.batch_id == HuntingtonBatch.id)
        .outerjoin(BatchLease, BatchLease.batch_id == HuntingtonBatch.id)
        .where(batch_date(zone) == day)
        .group_by(HuntingtonBatch.id, BatchLease.holder)
        .order_by(problems.desc(), HuntingtonBatch.id)
        .limit(MAX_BATCHES_SHOWN)
    )
    return [DailyBatch(**row._mapping) for row in rows]


def _queued_at() -> ColumnElement[datetime]:
    return func.coalesce(HuntingtonBatch.queued_at, HuntingtonBatch.created_at)


@dataclass(frozen=True)
class DailyTotals:
    """Cents sent, returned and failed in one day's batches."""

    day: date
    sent_cents: int = 0
    returned_cents: int = 0
    failed_cents: int = 0


def read_month(session: Session, last: date, zone: str) -> list[DailyTotals]:
    """Return the thirty days up to `last`, oldest first, including days without a batch."""
    first = last - timedelta(days=CHART_DAYS - 1)
    day, status, cents = batch_date(zone), HuntingtonTransaction.status, func.sum(HuntingtonTransaction.amount_cents)
    rows = session.execute(
        select(
            day,
            func.coalesce(cents.filter(status.in_(SENT_STATUSES)), 0),
            func.coalesce(cents.filter(status == "returned"), 0),
            func.coalesce(cents.filter(status == "failed"), 0),
        )
        .join(HuntingtonBatch, HuntingtonBatch.id == HuntingtonTransaction.batch_id)
        .where(day.between(first, last))
        .group_by(day)
    )
    known = {row[0]: DailyTotals(row[0], *(int(one) for one in row[1:])) for row in rows}
    days = [first + timedelta(days=number) for number in range(CHART_DAYS)]
    return [known.get(one, DailyTotals(one)) for one in days]


def render_month(month: Sequence[DailyTotals]) -> bytes:
    """Return a PNG with one stacked bar per day: sent at the bottom, then returned, then failed (dollars)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    positions = list(range(len(month)))
    bottoms = [0.0] * len(month)
    for label, color, cents in (
        ("sent", SENT_COLOR, [one.sent_cents for one in month]),
        ("returned", RETURNED_COLOR, [one.returned_cents for one in month]),
        ("failed", FAILED_COLOR, [one.failed_cents for one in month]),
    ):
        dollars = [one / 100 for one in cents]
        axes.bar(positions, dollars, bottom=bottoms, color=color, label=f"{label} (${sum(dollars):,.2f})")
        bottoms = [below + one for below, one in zip(bottoms, dollars, strict=True)]
    shown = positions[::-1][::5][::-1]
    axes.set_xticks(shown, [f"{month[one].day:%b} {month[one].day.day}" for one in shown], fontsize=8)
    axes.set_title(f"Transfers, {len(month)} days to {month[-1].day:%B} {month[-1].day.day}", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)
    # Leaves room for the legend.
    axes.set_ylim(0, max(*bottoms, 1.0) * 1.2)
    axes.yaxis.set_major_formatter(lambda value, _position: f"${value:,.0f}")
    axes.legend(frameon=False, fontsize=9, loc="upper left", ncols=3)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
