"""Draws the chart of a case ledger: the balance over time."""

from collections.abc import Sequence
from datetime import datetime
from io import BytesIO
from typing import Any

from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from seedtrust_ops.domain.reports.report_content import Chart

BEGIN, END = datetime(1900, 1, 1), datetime(9000, 1, 1)  # noqa: DTZ001  local times
"""A time beyond these, which a person has typed, is drawn as the nearest one."""
DATE_FORMATS = ["%Y", "%b %Y", "%b %d", "%b %d, %H:%M", "%b %d, %H:%M", "%H:%M:%S"]
"""The labels of an axis whose ticks are years, months, days, hours, minutes or seconds: each can be read by itself."""


def draw_balances(chart: Chart, rows: Sequence[tuple[Any, ...]]) -> BytesIO:
    """Return a PNG step chart of the amounts: a balance holds until the next entry."""
    timestamps = [min(max(row[chart.timestamp], BEGIN), END) for row in rows]
    amounts = [row[chart.cents] / 100 for row in rows]
    figure = Figure(figsize=(10, 2.7), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.step(timestamps, amounts, where="post", color="#2f6f8f", linewidth=1.4)
    axes.fill_between(timestamps, amounts, step="post", color="#2f6f8f", alpha=0.12)
    axes.set_title(chart.title, loc="left", fontsize=10)
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(
        ConciseDateFormatter(locator, formats=DATE_FORMATS, zero_formats=DATE_FORMATS, show_offset=False)  # type: ignore[no-untyped-call]
    )
    axes.yaxis.set_major_formatter(lambda value, _place: f"-\\${-value:,.0f}" if value < 0 else f"\\${value:,.0f}")
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    png = BytesIO()
    figure.savefig(png, format="png")
    png.seek(0)
    return png
