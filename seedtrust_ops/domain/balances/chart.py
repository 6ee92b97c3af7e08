"""Draws how balances are spread, as a picture that Dagster's UI shows between the other metadata."""

from io import BytesIO
from itertools import pairwise

from seedtrust_ops.domain.balances.snapshot import BRACKETS_CENTS, BalanceSheet

GOOD = "#2f6f8f"
SHORT = "#c8553d"


def draw_histogram(sheet: BalanceSheet) -> bytes:
    """Return a PNG: a bar for each bracket of balances, those below their minimum in another colour."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 3.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    above = [every - below for every, below in zip(sheet.bars, sheet.bars_below, strict=True)]
    places = range(len(sheet.bars))
    axes.bar(places, sheet.bars_below, color=SHORT, label=f"below their minimum ({sheet.below_minimum:,})")
    axes.bar(
        places,
        above,
        bottom=sheet.bars_below,
        color=GOOD,
        label=f"at or above it ({sheet.accounts - sheet.below_minimum:,})",
    )
    for place, count in enumerate(sheet.bars):
        if count:
            axes.annotate(f"{count:,}", (place, count), ha="center", va="bottom", fontsize=8)
    axes.set_xticks(list(places), _labels(), fontsize=8, parse_math=False)
    axes.set_title("Accounts of active cases by what they hold", loc="left", fontsize=11)
    axes.set_ylabel("accounts")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.12)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(lambda value, _place: f"{value:,.0f}")
    axes.legend(frameon=False, fontsize=9)
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    return drawn.getvalue()


def _labels() -> list[str]:
    ends = [f"${cents / 100_000:g}k" if cents else "$0" for cents in BRACKETS_CENTS]
    return ["below $0", *(f"{low} to {high}" for low, high in pairwise(ends)), f"over {ends[-1]}"]
