"""Draws thirty days of transfers, as a picture that Dagster's UI shows between the other metadata."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from io import BytesIO

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.reconciliation.daily_batches import GONE, day_of_batch
from seedtrust_ops.tables import HuntingtonBatch, HuntingtonTransaction

DAYS = 30
WENT, RETURNED, FAILED = "#2f6f8f", "#d9a441", "#c8553d"


@dataclass(frozen=True)
class DayOfMoney:
    """What became of the money of one day's batches, in cents."""

    day: date
    gone_cents: int = 0
    returned_cents: int = 0
    failed_cents: int = 0


def read_month(session: Session, last: date, zone: str) -> list[DayOfMoney]:
    """Return the thirty days that end with `last`, oldest first, those without a batch too."""
    first = last - timedelta(days=DAYS - 1)
    day, status, cents = day_of_batch(zone), HuntingtonTransaction.status, func.sum(HuntingtonTransaction.amount_cents)
    rows = session.execute(
        select(
            day,
            func.coalesce(cents.filter(status.in_(GONE)), 0),
            func.coalesce(cents.filter(status == "returned"), 0),
            func.coalesce(cents.filter(status == "failed"), 0),
        )
        .join(HuntingtonBatch, HuntingtonBatch.id == HuntingtonTransaction.batch_id)
        .where(day.between(first, last))
        .group_by(day)
    )
    known = {row[0]: DayOfMoney(row[0], *(int(one) for one in row[1:])) for row in rows}
    days = [first + timedelta(days=number) for number in range(DAYS)]
    return [known.get(one, DayOfMoney(one)) for one in days]


def draw_month(month: Sequence[DayOfMoney]) -> bytes:
    """Return a PNG: a bar a day, the money that went through at its foot, what came back and what failed upon it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    places = list(range(len(month)))
    foot = [0.0] * len(month)
    for label, color, cents in (
        ("went through", WENT, [one.gone_cents for one in month]),
        ("returned", RETURNED, [one.returned_cents for one in month]),
        ("failed", FAILED, [one.failed_cents for one in month]),
    ):
        dollars = [one / 100 for one in cents]
        axes.bar(places, dollars, bottom=foot, color=color, label=f"{label} (${sum(dollars):,.2f})")
        foot = [below + one for below, one in zip(foot, dollars, strict=True)]
    shown = places[::-1][::5][::-1]
    axes.set_xticks(shown, [f"{month[one].day:%b} {month[one].day.day}" for one in shown], fontsize=8)
    axes.set_title(f"Transfers of the {len(month)} days to {month[-1].day:%B} {month[-1].day.day}", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)
    # Room for the legend.
    axes.set_ylim(0, max(*foot, 1.0) * 1.2)
    axes.yaxis.set_major_formatter(lambda value, _place: f"${value:,.0f}")
    axes.legend(frameon=False, fontsize=9, loc="upper left", ncols=3)
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    return drawn.getvalue()
