"""Writes a report as CSV, for programs as well as for Excel: a header line, then one line per row."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from seedtrust_ops.domain.reports.report_content import ColumnType, Report

# OWASP, "CSV Injection": the characters that start a formula in a spreadsheet.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def write_csv(report: Report, rows: Iterator[tuple[Any, ...]], path: Path) -> None:
    """Write `rows` to `path`: money as 1234.50, timestamps as 2026-03-31 09:15:00.

    The file starts with a byte order mark; without it Excel garbles names such as José.
    """
    writers = [_WRITERS[column.type] for column in report.columns]
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(column.title for column in report.columns)
        lines.writerows(
            ["" if value is None else write(value) for write, value in zip(writers, row, strict=True)] for row in rows
        )


def escape_formula(value: object) -> str:
    """Return the text with an apostrophe in front if a spreadsheet would evaluate it as a formula."""
    text = str(value)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _money(cents: int) -> str:
    return (
        f"{cents / 100:.2f}"
        if abs(cents) < 2**50
        else f"{'-' if cents < 0 else ''}{abs(cents) // 100}.{abs(cents) % 100:02}"
    )


_WRITERS: dict[ColumnType, Callable[[Any], str]] = {
    ColumnType.TEXT: escape_formula,
    ColumnType.MONEY: _money,
    ColumnType.TIMESTAMP: lambda timestamp: timestamp.isoformat(" ", "seconds"),
    ColumnType.NUMBER: str,
}
