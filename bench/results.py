"""Keeps what was measured, part by part, and writes `results.md` and a plot of it; nobody writes them by hand."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib.figure import Figure as Picture

from bench.figures import Part
from bench.machine import versions

FOLDER = Path(__file__).parent
MEASURED = FOLDER / "measured.json"
BAR_INCHES = 0.24


def keep(part: Part) -> None:
    """Keep the part in the place of what was measured of it before, and write all anew."""
    measured = {one["letter"]: one for one in json.loads(MEASURED.read_text())} if MEASURED.is_file() else {}
    measured[part.letter] = asdict(part)
    parts = [measured[letter] for letter in sorted(measured)]
    MEASURED.write_text(json.dumps(parts, indent=1) + "\n")
    _write([Part.from_json(one) for one in parts])


def _write(parts: Sequence[Part]) -> None:
    promises = [promise for part in parts for promise in part.promises]
    kept = sum(promise.kept for promise in promises)
    lines = [
        "# Bench",
        "",
        "Written by `make bench`. Every figure is the median of n values, beside the least, the most and the p95. What "
        "a part compares was measured side by side in one run; its date says where a part was measured by itself.",
        "",
        f"- {versions()}",
        f"- {kept} of {len(promises)} promises kept; each is at the end of its part.",
        "",
        "![The medians, on a logarithmic scale](results.png)",
        "",
        *(part.markdown() for part in parts),
    ]
    (FOLDER / "results.md").write_text("\n".join(lines))
    _plot(parts, FOLDER / "results.png")


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
