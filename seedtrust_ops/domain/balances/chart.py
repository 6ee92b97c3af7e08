"""Renders the distribution of account balances as a PNG for the Dagster UI."""

from io import BytesIO
from itertools import pairwise

from seedtrust_ops.domain.balances.snapshot import BUCKET_BOUNDS_CENTS, BalanceSnapshot

GOOD = "#2f6f8f"
BELOW_MINIMUM = "#c8553d"


def render_histogram(snapshot: BalanceSnapshot) -> bytes:
    """Return a PNG with one bar per balance bucket; accounts below their minimum have another color."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 3.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    counts, below_counts = snapshot.bucket_counts, snapshot.below_minimum_counts
    above_counts = [count - below for count, below in zip(counts, below_counts, strict=True)]
    positions = range(len(counts))
    axes.bar(positions, below_counts, color=BELOW_MINIMUM, label=f"below minimum ({snapshot.below_minimum:,})")
    axes.bar(
        positions,
        above_counts,
        bottom=below_counts,
        color=GOOD,
        label=f"at or above minimum ({snapshot.accounts - snapshot.below_minimum:,})",
    )
    for position, count in enumerate(counts):
        if count:
            axes.annotate(f"{count:,}", (position, count), ha="center", va="bottom", fontsize=8)
    axes.set_xticks(list(positions), _labels(), fontsize=8, parse_math=False)
    axes.set_title("Active case accounts by balance", loc="left", fontsize=11)
    axes.set_ylabel("Accounts")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.12)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(lambda value, _position: f"{value:,.0f}")
    axes.legend(frameon=False, fontsize=9)
    png = BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def _labels() -> list[str]:
    bounds = [f"${cents / 100_000:g}k" if cents else "$0" for cents in BUCKET_BOUNDS_CENTS]
    return ["below $0", *(f"{low} to {high}" for low, high in pairwise(bounds)), f"over {bounds[-1]}"]
