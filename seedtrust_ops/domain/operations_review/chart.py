"""Renders a week of operations as one PNG with four charts, one bar per day in each."""

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from seedtrust_ops.domain.operations_review.weekly_figures import WeeklyFigures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GOOD, BAD, IDLE = "#2f6f8f", "#c8553d", "#b9bec4"
MINUTE = 60


def render_week(week: WeeklyFigures) -> bytes:
    """Return a PNG with four charts: runs and failures, approvals, money moved, and reports with waiting times."""
    from matplotlib.figure import Figure

    # Dagster shows it in a dialog about 950 pixels wide and cuts off the rest.
    figure = Figure(figsize=(11, 6), dpi=84, layout="constrained")
    (runs, approvals), (money, reports) = figure.subplots(2, 2)
    figure.suptitle(f"Operations in the week of Monday, {week.first:%B} {week.first.day}, {week.first.year}")
    days = week.days
    _bars(
        runs,
        week,
        f"Runs: {week.total('runs'):,} ({week.total('failed'):,} failed)",
        {
            "succeeded or in progress": (GOOD, [day.runs - day.failed - day.not_executed for day in days]),
            "failed": (BAD, [day.failed for day in days]),
            "expired or revoked": (IDLE, [day.not_executed for day in days]),
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
            "returned": (BAD, [-day.returned_cents / 100 for day in days]),
        },
    )
    money.yaxis.set_major_formatter(lambda value, _position: f"{'-' if value < 0 else ''}${abs(value):,.0f}")
    _bars(
        reports,
        week,
        f"Reports: {week.total('reports'):,} generated, {week.total('reports_failed'):,} failed",
        {
            "generated": (GOOD, [day.reports for day in days]),
            "failed": (BAD, [day.reports_failed for day in days]),
        },
    )
    _plot_waiting_times(reports, week)
    png = BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def _bars(axes: "Axes", week: WeeklyFigures, title: str, bars: dict[str, tuple[str, Sequence[float]]]) -> None:
    """Draw one stacked bar per day; negative parts go below the zero line."""
    from matplotlib.ticker import MaxNLocator

    positions = list(range(len(week.days)))
    bottom, lowest = [0.0] * len(positions), 0.0
    for label, (color, heights) in bars.items():
        below = min(heights) < 0
        axes.bar(positions, heights, bottom=0 if below else bottom, color=color, label=label)
        if below:
            lowest = min(lowest, *heights)
        else:
            bottom = [base + height for base, height in zip(bottom, heights, strict=True)]
    axes.set_xticks(positions, [f"{day.day:%a} {day.day.day}" for day in week.days], fontsize=8)
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    # Leave space for the legend.
    axes.set_ylim(lowest * 1.1, max(*bottom, 1.0) * 1.3)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(lambda value, _position: f"{value:,.0f}")
    axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=3)


def _plot_waiting_times(axes: "Axes", week: WeeklyFigures) -> None:
    """Plot the waiting times for reports in minutes, on a separate axis at the right."""
    scale: Any = axes.twinx()
    days = [(position, day) for position, day in enumerate(week.days) if day.reports or day.reports_failed]
    positions = [position for position, _ in days]
    median = [day.median_wait_seconds / MINUTE for _, day in days]
    longest = [day.max_wait_seconds / MINUTE for _, day in days]
    for label, marker, minutes in (("median wait", "o", median), ("longest wait", "^", longest)):
        scale.plot(positions, minutes, marker, color="#444444", markersize=5, label=label)
    scale.set_ylabel("Wait (minutes)", fontsize=8)
    scale.set_ylim(0, max([*longest, 1.0]) * 1.3)
    scale.spines[["top"]].set_visible(False)
    scale.legend(frameon=False, fontsize=8, loc="upper right")
