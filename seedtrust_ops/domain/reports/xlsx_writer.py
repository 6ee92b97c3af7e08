"""Writes a report as an Excel workbook, one row at a time: title and totals, then a table with frozen headers."""

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from xlsxwriter.format import Format
from xlsxwriter.workbook import Workbook
from xlsxwriter.worksheet import Worksheet

from seedtrust_ops.domain.reports.report_content import Column, ColumnType, Report
from seedtrust_ops.formatting import format_dollars

ROWS_PER_SHEET = 1_000_000
"""An Excel sheet holds 1,048,576 rows; the rest goes to the next sheet."""
FIRST_YEAR, LAST_YEAR = 1900, 9998
"""The times that Excel and Python have; others are written as text, as PostgreSQL shows them."""
MAX_EXACT_CENTS = 10**15
"""Excel keeps 15 digits of a number. A larger amount is written as text, so that no cent of it changes."""
MONEY = '"$"#,##0.00;[Red]-"$"#,##0.00'
HEADER_COLOR = "#1F3A4D"


def write_xlsx(report: Report, rows: Iterator[tuple[Any, ...]], path: Path) -> None:
    """Write `rows` to `path`. Text is stored as text, so Excel never evaluates user input as a formula."""
    options = {
        "constant_memory": True,
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "strings_to_numbers": False,
        "tmpdir": str(path.parent),
    }
    with Workbook(str(path), options) as workbook:
        workbook.set_properties({"title": f"{report.title}: {report.about}", "company": "SeedTrust"})
        formats = _formats(workbook)
        for number, part in enumerate(_sheets(rows), 1):
            sheet = workbook.add_worksheet(report.title[:24] + (f" ({number})" if number > 1 else ""))
            _write_sheet(sheet, report, formats, part)


def _sheets(rows: Iterator[tuple[Any, ...]]) -> Iterator[Iterator[tuple[Any, ...]]]:
    """Yield the rows of each sheet, at least one sheet. Each iterator must be consumed before the next is requested."""
    yield islice(rows, ROWS_PER_SHEET)
    for first in rows:
        yield chain((first,), islice(rows, ROWS_PER_SHEET - 1))


def _formats(workbook: Workbook) -> dict[str, Format]:
    return {
        "title": workbook.add_format({"bold": True, "font_size": 16, "font_color": HEADER_COLOR}),
        "about": workbook.add_format({"font_color": "#555555"}),
        "label": workbook.add_format({"bold": True}),
        "header": workbook.add_format(
            {"bold": True, "font_color": "#FFFFFF", "bg_color": HEADER_COLOR, "valign": "vcenter"}
        ),
        "number header": workbook.add_format(
            {"bold": True, "font_color": "#FFFFFF", "bg_color": HEADER_COLOR, "valign": "vcenter", "align": "right"}
        ),
        ColumnType.TEXT: workbook.add_format({"num_format": "@"}),
        ColumnType.MONEY: workbook.add_format({"num_format": MONEY}),
        ColumnType.TIMESTAMP: workbook.add_format({"num_format": "mmm d, yyyy h:mm AM/PM", "align": "left"}),
        ColumnType.NUMBER: workbook.add_format({"num_format": "#,##0"}),
        "large money": workbook.add_format({"align": "right"}),
        "total money": workbook.add_format({"num_format": MONEY, "align": "left", "bold": True}),
        "total number": workbook.add_format({"num_format": "#,##0", "align": "left", "bold": True}),
    }


def _write_sheet(sheet: Worksheet, report: Report, formats: dict[str, Format], rows: Iterator[tuple[Any, ...]]) -> None:
    for index, column in enumerate(report.columns):
        sheet.set_column(index, index, column.width)
    header = _write_headings(sheet, report, formats)
    last = header
    for last, row in enumerate(rows, header + 1):
        for index, (column, value) in enumerate(zip(report.columns, row, strict=True)):
            if value is not None:
                _write_cell(sheet, last, index, column, value, formats)
    if last == header:
        last += 1
        sheet.write_string(last, 0, "No rows.", formats["about"])
    sheet.autofilter(header, 0, last, len(report.columns) - 1)
    sheet.freeze_panes(header + 1, 0)
    sheet.set_landscape()
    sheet.set_paper(1)
    sheet.fit_to_pages(1, 0)
    sheet.repeat_rows(header)
    sheet.set_footer(f"&L{_plain(report.title)}: {_plain(report.about)}&RPage &P of &N")


def _write_headings(sheet: Worksheet, report: Report, formats: dict[str, Format]) -> int:
    """Write the title, the totals and the column headers; return the row number of the headers."""
    sheet.set_row(0, 24)
    sheet.write_string(0, 0, f"SeedTrust: {report.title}", formats["title"])
    sheet.write_string(1, 0, report.about, formats["about"])
    sheet.write_string(2, 0, f"As of {report.as_of:%B %d, %Y at %H:%M}", formats["about"])
    row = 3
    for row, total in enumerate(report.totals, 4):
        sheet.write_string(row, 0, total.title, formats["label"])
        is_money = total.type is ColumnType.MONEY
        cell_format = formats["total money" if is_money else "total number"]
        # A number that is wider than its cell is shown as ####, and column B may be narrow.
        sheet.merge_range(row, 1, row, 3, "", cell_format)
        if is_money:
            _write_money(sheet, row, 1, total.value, cell_format, cell_format)
        else:
            sheet.write_number(row, 1, total.value, cell_format)
    header = row + 2
    sheet.set_row(header, 20)
    for index, column in enumerate(report.columns):
        right = column.type in (ColumnType.MONEY, ColumnType.NUMBER)
        sheet.write_string(header, index, column.title, formats["number header" if right else "header"])
    return header


def _write_cell(sheet: Worksheet, row: int, index: int, column: Column, value: Any, formats: dict[str, Format]) -> None:
    cell_format = formats[column.type]
    if column.type is ColumnType.MONEY:
        _write_money(sheet, row, index, value, cell_format, formats["large money"])
    elif column.type is ColumnType.NUMBER:
        sheet.write_number(row, index, value, cell_format)
    elif column.type is ColumnType.TIMESTAMP and FIRST_YEAR <= value.year <= LAST_YEAR:
        sheet.write_datetime(row, index, value, cell_format)
    else:
        # Excel's limit of 32,767 characters is above the one at which `report_kinds` cuts texts.
        sheet.write_string(row, index, str(value), cell_format)


def _write_money(
    sheet: Worksheet, row: int, index: int, cents: int, number_format: Format, text_format: Format
) -> None:
    if abs(cents) < MAX_EXACT_CENTS:
        sheet.write_number(row, index, cents / 100, number_format)
    else:
        sheet.write_string(row, index, format_dollars(cents), text_format)


def _plain(text: str) -> str:
    # An ampersand starts a control code in a footer.
    return text.replace("&", "&&")[:100]
