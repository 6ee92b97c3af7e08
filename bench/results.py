"""Keeps the measurements part by part in measured.json, and writes `results.md` and its chart from them."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib.figure import Figure

from bench.machine import describe_versions
from bench.measurements import Part

FOLDER = Path(__file__).parent
MEASURED = FOLDER / "measured.json"
BAR_INCHES = 0.24


def save_part(part: Part) -> None:
    """Replace the part's previous measurements, and write the results again."""
    measured = {saved["key"]: saved for saved in json.loads(MEASURED.read_text())} if MEASURED.is_file() else {}
    measured[part.key] = asdict(part)
    parts = [measured[key] for key in sorted(measured)]
    MEASURED.write_text(json.dumps(parts, indent=1) + "\n")
    write_results([Part.from_json(saved_part) for saved_part in parts])


def write_results(parts: Sequence[Part]) -> None:
    """Write `results.md` and `results.png`."""
    targets = [target for part in parts for target in part.targets]
    met = sum(target.is_met for target in targets)
    lines = [
        "# Benchmark results",
        "",
        "Written by `make bench`; do not edit. Every value is the median of n values, followed by the minimum, the "
        "maximum and the 95th percentile. What a part compares was measured side by side in one run; the date under a "
        "part's title says when.",
        "",
        f"- {describe_versions()}",
        f"- {met} of {len(targets)} targets met; each is at the end of its part.",
        "",
        "![The medians, on a logarithmic scale](results.png)",
        "",
        *(part.to_markdown() for part in parts),
    ]
    (FOLDER / "results.md").write_text("\n".join(lines))
    _draw_chart(parts, FOLDER / "results.png")


def _draw_chart(parts: Sequence[Part], path: Path) -> None:
    heights = [len(part.measurements) + 2 for part in parts]
    chart = Figure(figsize=(8, BAR_INCHES * sum(heights)), dpi=80, layout="constrained")
    for axes, part in zip(chart.subplots(len(parts), squeeze=False, height_ratios=heights)[:, 0], parts, strict=True):
        medians = [measurement.median for measurement in part.measurements]
        spread = [
            [measurement.median - min(measurement.values) for measurement in part.measurements],
            [max(measurement.values) - measurement.median for measurement in part.measurements],
        ]
        colors = [
            "tab:green" if measurement.name.startswith(("SeedTrust", "warm")) else "tab:gray"
            for measurement in part.measurements
        ]
        names = [f"{measurement.name} [{measurement.unit}]" for measurement in part.measurements]
        axes.barh(names, medians, xerr=spread, color=colors, ecolor="black", capsize=2)
        axes.set_xscale("log")
        axes.invert_yaxis()
        axes.tick_params(labelsize=7)
        axes.set_title(f"({part.key}) {part.title}", fontsize=8, loc="left")
    chart.savefig(path)
