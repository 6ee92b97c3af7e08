"""What Excel reads in a report: every amount to the cent, and every text as it was written."""

from datetime import datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from openpyxl.utils.escape import unescape
from sqlalchemy import select

from seedtrust_ops.domain.reports.report_content import Column, ColumnType, Report, Total
from seedtrust_ops.domain.reports.xlsx_writer import write_xlsx
from seedtrust_ops_tests.domain.reports.names import NAMES

LARGE = {
    10**15 - 1: 9_999_999_999_999.99,
    -(10**15) + 1: -9_999_999_999_999.99,
    10**15: "$10,000,000,000,000.00",
    2**53 + 1: "$90,071,992,547,409.93",
    -(2**53) - 1: "-$90,071,992,547,409.93",
    2**63 - 1: "$92,233,720,368,547,758.07",
}
"""What Excel shows of amounts in cents. It keeps 15 digits of a number."""
TEXTS = [
    *NAMES.values(),
    "😀",
    " spaces ",
    "line\r\nbreak",
    "\x01\x1f\x7f",
    "_x0041_",
    "\uffff",
    "\u200d",
    "=1+1",
    "x" * 5_000,
]


def write(folder: Path, column_type: ColumnType, values: list[Any], totals: tuple[Total, ...] = ()) -> Any:
    """Write a report of one column, and return its sheet."""
    report = Report(
        title="Values",
        about="A test",
        as_of=datetime(2026, 3, 3, 12),  # noqa: DTZ001  local time
        columns=[Column("Value", column_type, 20)],
        totals=totals,
        rows=select(),
    )
    write_xlsx(report, iter([(value,) for value in values]), folder / "report.xlsx")
    return openpyxl.load_workbook(folder / "report.xlsx").worksheets[0]


@pytest.mark.parametrize("cents", LARGE)
def test_large_amounts_keep_every_cent(tmp_path: Path, cents: int) -> None:
    sheet = write(tmp_path, ColumnType.MONEY, [cents], (Total("Balance", ColumnType.MONEY, cents),))
    assert sheet.cell(sheet.max_row, 1).value == sheet["B5"].value == LARGE[cents]


def test_totals_have_space_beside_a_narrow_column(tmp_path: Path) -> None:
    """Excel shows a number that is wider than its cell as ####."""
    sheet = write(tmp_path, ColumnType.TEXT, ["x"], (Total("Balance", ColumnType.MONEY, 10**14),))
    assert "B5:D5" in {str(merged) for merged in sheet.merged_cells.ranges}


def test_texts_keep_every_character(tmp_path: Path) -> None:
    sheet = write(tmp_path, ColumnType.TEXT, list(TEXTS))
    rows = sheet.iter_rows(min_row=sheet.max_row - len(TEXTS) + 1, values_only=True)
    assert [unescape(text) for (text,) in rows] == TEXTS
