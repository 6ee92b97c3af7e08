"""What was measured, and how it is written down: medians with the least and the most, and promises with verdicts."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """Values of one thing measured again and again, in `unit`."""

    what: str
    values: Sequence[float]
    unit: str = "s"
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def percentile(self, percent: int) -> float:
        """The value that so many of a hundred do not exceed (nearest rank)."""
        ordered = sorted(self.values)
        return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]

    def row(self) -> str:
        """Return it as a row of the table."""
        numbers = (self.median, min(self.values), max(self.values), self.percentile(95))
        cells = [self.what, *map(number, numbers), self.unit, str(len(self.values)), self.note]
        return f"| {' | '.join(cells)} |"


@dataclass(frozen=True)
class Promise:
    """What must show, what did, and whether that is enough."""

    sentence: str
    shown: str
    kept: bool

    def row(self) -> str:
        return f"| {self.sentence} | {self.shown} | {'yes' if self.kept else '**no**'} |"


@dataclass
class Part:
    """One part of the bench: what was done, what came out, what was left out and why."""

    letter: str
    title: str
    how: str
    figures: list[Figure] = field(default_factory=list)
    promises: list[Promise] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    seconds: float = 0.0
    ended: str = ""
    """When and on what machine."""
    broke: bool = False

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "Part":
        """Return the part of which `kept` is the `asdict`."""
        figures = [Figure(**one) for one in kept["figures"]]
        return cls(**(kept | {"figures": figures, "promises": [Promise(**one) for one in kept["promises"]]}))

    def add(self, figure: Figure) -> Figure:
        """Keep a figure, and say it at once: a bench takes long."""
        self.figures.append(figure)
        say(f"  {figure.what}: median {number(figure.median)} {figure.unit}, {len(figure.values)} values")
        return figure

    def markdown(self) -> str:
        lines = [f"## ({self.letter}) {self.title}", "", self.how, ""]
        lines += [f"Measured in {self.seconds / 60:.1f} minutes until {self.ended}.", ""]
        if self.figures:
            lines += [
                "| what | median | min | max | p95 | unit | n | |",
                "| --- | --: | --: | --: | --: | --- | --: | --- |",
            ]
            lines += [figure.row() for figure in self.figures]
        if self.promises:
            lines += ["", "| must show | shown | kept |", "| --- | --- | --- |"]
            lines += [promise.row() for promise in self.promises]
        lines += [f"\nLeft out: {reason}" for reason in self.left_out]
        return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Three digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def say(line: str) -> None:
    print(line, flush=True)
