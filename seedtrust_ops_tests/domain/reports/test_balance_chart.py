"""The axis of a ledger's chart: each label can be read by itself, whatever the ledger's span is."""

import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from matplotlib.figure import Figure

from seedtrust_ops.domain.reports import balance_chart
from seedtrust_ops.domain.reports.balance_chart import draw_balances
from seedtrust_ops.domain.reports.report_content import Chart
from seedtrust_ops.tables.extreme_times import ExtremeTime

CHART = Chart("Balance over time", timestamp=0, cents=1)
START = datetime(2026, 11, 20, 16)  # noqa: DTZ001  local time
SPANS = {
    "hours": (timedelta(hours=7), r"Nov 20, \d\d:00"),
    "days": (timedelta(days=12), r"(Nov|Dec) \d\d"),
    "months": (timedelta(days=300), r"[A-Z][a-z]{2} 202[67]"),
    "years": (timedelta(days=4_000), r"20\d\d"),
}


def labels_of(monkeypatch: pytest.MonkeyPatch, timestamps: list[datetime]) -> list[str]:
    """Draw a chart of these times and return the labels of its axis."""
    labels = []

    class KeptFigure(Figure):
        def savefig(self, *arguments: Any, **options: Any) -> None:
            super().savefig(*arguments, **options)
            labels.extend(label.get_text() for label in self.axes[0].get_xticklabels())

    monkeypatch.setattr(balance_chart, "Figure", KeptFigure)
    png = draw_balances(CHART, [(time, number * 100) for number, time in enumerate(timestamps)])
    assert png.read(4) == b"\x89PNG"
    return labels


@pytest.mark.parametrize("span", SPANS)
def test_labels_name_days_with_months_and_months_with_years(monkeypatch: pytest.MonkeyPatch, span: str) -> None:
    length, pattern = SPANS[span]
    labels = labels_of(monkeypatch, [START + length * part / 10 for part in range(11)])
    assert len(labels) > 3
    assert [label for label in labels if not re.fullmatch(pattern, label)] == []


@pytest.mark.parametrize(
    "times",
    [
        [datetime(1, 1, 1), datetime(9999, 12, 31, 23)],  # noqa: DTZ001  local times
        [ExtremeTime.of("-infinity", None), START, ExtremeTime.of("20260-03-03 12:00:00", None)],
        [START, START],
    ],
    ids=["years 1 and 9999", "infinity and year 20260", "one moment"],
)
def test_times_that_nobody_meant_are_drawn(monkeypatch: pytest.MonkeyPatch, times: list[datetime]) -> None:
    assert labels_of(monkeypatch, times)
