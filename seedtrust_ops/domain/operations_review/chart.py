"""Draws a week of operations as one picture of four small ones, a bar a day in each."""

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from seedtrust_ops.domain.operations_review.weekly_figures import Week

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GOOD, BAD, IDLE = "#2f6f8f", "#c8553d", "#b9bec4"
MINUTE = 60


def draw_week(week: Week) -> bytes:
    """Return a PNG: runs and failures, approvals, money moved, and reports with the time that they were waited for."""
    from matplotlib.figure import Figure

    # Dagster shows it in a window of some 950 pixels, and cuts off what is wider.
    figure = Figure(figsize=(11, 6), dpi=84, layout="constrained")
    (runs, approvals), (money, reports) = figure.subplots(2, 2)
    figure.suptitle(f"Operations in the week from Monday, {week.first:%B} {week.first.day}, {week.first.year}")
    days = week.days
    _bars(
        runs,
        week,
        f"Runs: {week.total('runs'):,}, of which {week.total('failed'):,} failed",
        {
            "ended well or under way": (GOOD, [day.runs - day.failed - day.unserved for day in days]),
            "failed": (BAD, [day.failed for day in days]),
            "expired or revoked": (IDLE, [day.unserved for day in days]),
        },
    )
    _bars(
        approvals,
        week,
        f"Approvals: {week.total('approvals'):,} requests",
        {"approved": (GOOD, [day.approvals for day in days])},
    )
    _bars(
        money,
        week,
        "Money moved",
        {
            "paid": (GOOD, [day.moved_cents / 100 for day in days]),
            "came back": (BAD, [-day.returned_cents / 100 for day in days]),
        },
    )
    money.yaxis.set_major_formatter(lambda value, _place: f"{'-' if value < 0 else ''}${abs(value):,.0f}")
    _bars(
        reports,
        week,
        f"Reports: {week.total('reports'):,} made, {week.total('reports_failed'):,} failed",
        {
            "made": (GOOD, [day.reports for day in days]),
            "failed": (BAD, [day.reports_failed for day in days]),
        },
    )
    _waiting(reports, week)
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    return drawn.getvalue()


def _bars(axes: "Axes", week: Week, title: str, bars: dict[str, tuple[str, Sequence[float]]]) -> None:
    """Draw one bar a day, its parts upon each other; what is below zero hangs from the line."""
    from matplotlib.ticker import MaxNLocator

    places = list(range(len(week.days)))
    foot, lowest = [0.0] * len(places), 0.0
    for label, (color, heights) in bars.items():
        below = min(heights) < 0
        axes.bar(places, heights, bottom=0 if below else foot, color=color, label=label)
        if below:
            lowest = min(lowest, *heights)
        else:
            foot = [under + height for under, height in zip(foot, heights, strict=True)]
    axes.set_xticks(places, [f"{day.day:%a} {day.day.day}" for day in week.days], fontsize=8)
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    # Room for the legend.
    axes.set_ylim(lowest * 1.1, max(*foot, 1.0) * 1.3)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(lambda value, _place: f"{value:,.0f}")
    axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=3)


def _waiting(axes: "Axes", week: Week) -> None:
    """Draw, on a scale of its own at the right, the minutes that reports were waited for."""
    scale: Any = axes.twinx()
    ended = [(place, day) for place, day in enumerate(week.days) if day.reports or day.reports_failed]
    places = [place for place, _ in ended]
    half = [day.half_waited_seconds / MINUTE for _, day in ended]
    longest = [day.longest_wait_seconds / MINUTE for _, day in ended]
    for label, mark, minutes in (("half waited less", "o", half), ("the longest wait", "^", longest)):
        scale.plot(places, minutes, mark, color="#444444", markersize=5, label=label)
    scale.set_ylabel("minutes of waiting", fontsize=8)
    scale.set_ylim(0, max([*longest, 1.0]) * 1.3)
    scale.spines[["top"]].set_visible(False)
    scale.legend(frameon=False, fontsize=8, loc="upper right")
