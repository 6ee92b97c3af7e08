"""Writes a report as CSV, for programs as well as for Excel: a header line, then one line per row."""

import csv
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from seedtrust_ops.domain.reports.report_content import ColumnType, Report
from seedtrust_ops.tables.extreme_times import ExtremeTime

# OWASP, "CSV Injection": what starts a formula in a spreadsheet. The full-width and small forms of these characters,
# and the minus sign, do so in programs that read East Asian text.
_FORMULA_STARTS = r"=+\-@" "\uff1d\uff0b\uff0d\uff20" "\ufe66\ufe62\ufe63\ufe6b" "\u2212"
# Programs that trim cells look behind spaces, control characters, and what is not visible.
_IGNORED = r"\x00-\x08\x0b\x0c\x0e-\x20\x7f-\xa0\xad\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff"
# Programs that split lines at semicolons or tabs, as Excel does in some countries, find another cell behind each.
_FORMULA_CELL = re.compile(rf"\A(?=[\t\r\n])|(\A|[;\t\r\n])(?=[{_IGNORED}]*[{_FORMULA_STARTS}])")
_SUSPICIOUS = re.compile(rf"[{_FORMULA_STARTS}\t\r\n]")


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
    """Return the text with an apostrophe wherever a spreadsheet would find a cell that could start a formula."""
    text = str(value)
    return _FORMULA_CELL.sub(r"\1'", text) if _SUSPICIOUS.search(text) else text


def _money(cents: int) -> str:
    return (
        f"{cents / 100:.2f}"
        if abs(cents) < 2**50
        else f"{'-' if cents < 0 else ''}{abs(cents) // 100}.{abs(cents) % 100:02}"
    )


def _timestamp(time: datetime) -> str:
    return escape_formula(time) if isinstance(time, ExtremeTime) else time.isoformat(" ", "seconds")


_WRITERS: dict[ColumnType, Callable[[Any], str]] = {
    ColumnType.TEXT: escape_formula,
    ColumnType.MONEY: _money,
    ColumnType.TIMESTAMP: _timestamp,
    ColumnType.NUMBER: str,
}
