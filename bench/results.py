"""Writes what was measured: `results.md` and a plot beside it. Nobody writes either by hand."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure as Picture

from bench.figures import Part
from bench.machine import described

FOLDER = Path(__file__).parent
BAR_INCHES = 0.24


def write(parts: Sequence[Part], *, all_of: str) -> None:
    """Write the parts; a run that is not of all of them gets files of its own."""
    letters = "".join(part.letter for part in parts)
    name = "results" if letters == all_of else f"results-{letters}"
    promises = [promise for part in parts for promise in part.promises]
    kept = sum(promise.kept for promise in promises)
    lines = [
        "# Bench",
        "",
        "Written by `make bench`. Every figure is the median of n values, beside the least, the most and the p95.",
        "",
        described(),
        "",
        f"- {kept} of {len(promises)} promises kept; each is at the end of its part.",
        "",
        f"![The medians, on a logarithmic scale]({name}.png)",
        "",
        *(part.markdown() for part in parts),
    ]
    (FOLDER / f"{name}.md").write_text("\n".join(lines))
    _plot(parts, FOLDER / f"{name}.png")
    for shorter in range(1, len(parts)):
        # What an earlier call of the same run wrote.
        for suffix in ("md", "png"):
            (FOLDER / f"results-{letters[:shorter]}.{suffix}").unlink(missing_ok=True)


def _plot(parts: Sequence[Part], path: Path) -> None:
    heights = [len(part.figures) + 2 for part in parts]
    picture = Picture(figsize=(8, BAR_INCHES * sum(heights)), dpi=80, layout="constrained")
    for axes, part in zip(picture.subplots(len(parts), squeeze=False, height_ratios=heights)[:, 0], parts, strict=True):
        medians = [figure.median for figure in part.figures]
        spread = [
            [figure.median - min(figure.values) for figure in part.figures],
            [max(figure.values) - figure.median for figure in part.figures],
        ]
        colours = ["tab:green" if figure.what.startswith(("ours", "warm")) else "tab:gray" for figure in part.figures]
        names = [f"{figure.what} [{figure.unit}]" for figure in part.figures]
        axes.barh(names, medians, xerr=spread, color=colours, ecolor="black", capsize=2)
        axes.set_xscale("log")
        axes.invert_yaxis()
        axes.tick_params(labelsize=7)
        axes.set_title(f"({part.letter}) {part.title}", fontsize=8, loc="left")
    picture.savefig(path)
