"""Writes a report as CSV: a line of column titles and a line a row, for programs as well as for Excel."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from seedtrust_ops.domain.reports.report_content import Report, Shape

# OWASP, "CSV Injection": what spreadsheets take for the start of a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def write_csv(report: Report, rows: Iterator[tuple[Any, ...]], path: Path) -> None:
    """Write `rows` to `path`: money as 1234.50, moments as 2026-03-31 09:15:00.

    The file starts with a byte order mark, without which Excel takes names like José for something else.
    """
    writers = [_WRITERS[column.shape] for column in report.columns]
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(column.title for column in report.columns)
        lines.writerows(
            ["" if value is None else write(value) for write, value in zip(writers, row, strict=True)] for row in rows
        )


def harmless(value: object) -> str:
    """Return a text that no spreadsheet takes for a formula: an apostrophe goes before what could start one."""
    text = str(value)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _money(cents: int) -> str:
    return (
        f"{cents / 100:.2f}"
        if abs(cents) < 2**50
        else f"{'-' if cents < 0 else ''}{abs(cents) // 100}.{abs(cents) % 100:02}"
    )


_WRITERS: dict[Shape, Callable[[Any], str]] = {
    Shape.TEXT: harmless,
    Shape.MONEY: _money,
    Shape.MOMENT: lambda moment: moment.isoformat(" ", "seconds"),
    Shape.NUMBER: str,
}
