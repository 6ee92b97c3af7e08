"""The measured values and how they are shown: medians with minimum, maximum and p95, and targets with verdicts."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """The values of one quantity measured repeatedly, in `unit`."""

    name: str
    values: Sequence[float]
    unit: str = "s"
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def percentile(self, percent: int) -> float:
        """Return the smallest value that at least `percent` percent of the values do not exceed (nearest rank)."""
        ordered = sorted(self.values)
        return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]

    def to_row(self) -> str:
        """Return the measurement as a Markdown table row."""
        numbers = (self.median, min(self.values), max(self.values), self.percentile(95))
        cells = [self.name, *map(format_number, numbers), self.unit, str(len(self.values)), self.note]
        return f"| {' | '.join(cells)} |"


@dataclass(frozen=True)
class Target:
    """What must be achieved, what was measured, and whether that meets the target."""

    description: str
    measured: str
    is_met: bool

    def to_row(self) -> str:
        """Return the target as a Markdown table row."""
        return f"| {self.description} | {self.measured} | {'yes' if self.is_met else '**no**'} |"


@dataclass
class Part:
    """One part of the benchmark: how it was measured, the results, and what was skipped and why."""

    key: str
    title: str
    method: str
    measurements: list[Measurement] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    seconds: float = 0.0
    conditions: str = ""
    """When the part ended, on which machine, and with what load."""
    failed: bool = False

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Part":
        """Return the part from the dictionary that `asdict` made of it."""
        measurements = [Measurement(**measurement) for measurement in data["measurements"]]
        return cls(
            **(data | {"measurements": measurements, "targets": [Target(**target) for target in data["targets"]]})
        )

    def add(self, measurement: Measurement) -> Measurement:
        """Keep a measurement and print it right away, because a benchmark takes long."""
        self.measurements.append(measurement)
        log_line(
            f"  {measurement.name}: median {format_number(measurement.median)} {measurement.unit}, "
            f"{len(measurement.values)} values"
        )
        return measurement

    def to_markdown(self) -> str:
        """Return the part as a Markdown section."""
        lines = [f"## ({self.key}) {self.title}", "", self.method, ""]
        lines += [f"Measured in {self.seconds / 60:.1f} minutes until {self.conditions}.", ""]
        if self.measurements:
            lines += [
                "| measurement | median | min | max | p95 | unit | n | note |",
                "| --- | --: | --: | --: | --: | --- | --: | --- |",
            ]
            lines += [measurement.to_row() for measurement in self.measurements]
        if self.targets:
            lines += ["", "| target | measured | met |", "| --- | --- | --- |"]
            lines += [target.to_row() for target in self.targets]
        lines += [f"\nSkipped: {reason}" for reason in self.skipped]
        return "\n".join(lines) + "\n"


def format_number(value: float) -> str:
    """Return the number with three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def log_line(line: str) -> None:
    """Print a line of progress."""
    print(line, flush=True)
