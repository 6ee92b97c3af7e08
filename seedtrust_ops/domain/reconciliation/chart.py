"""Loads the daily totals of thirty days of transfers, and renders them as a PNG for the Dagster UI."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from io import BytesIO

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.reconciliation.daily_batches import SENT_STATUSES, batch_date
from seedtrust_ops.tables import HuntingtonBatch, HuntingtonTransaction

DAYS = 30
SENT_COLOR, RETURNED_COLOR, FAILED_COLOR = "#2f6f8f", "#d9a441", "#c8553d"


@dataclass(frozen=True)
class DailyTotals:
    """Cents sent, returned and failed in one day's batches."""

    day: date
    sent_cents: int = 0
    returned_cents: int = 0
    failed_cents: int = 0


def read_month(session: Session, last: date, zone: str) -> list[DailyTotals]:
    """Return the thirty days up to `last`, oldest first, including days without a batch."""
    first = last - timedelta(days=DAYS - 1)
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
    days = [first + timedelta(days=number) for number in range(DAYS)]
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
