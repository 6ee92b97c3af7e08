"""How the tables of a PDF look: no word, date or title is broken, and a report is not longer than its content."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pypdf import PdfReader
from sqlalchemy import select

from seedtrust_ops.domain.reports.pdf_writer import write_pdf
from seedtrust_ops.domain.reports.report_content import Column, ColumnType, Report, Total
from seedtrust_ops_tests.domain.reports.names import NAMES

TEXT, MONEY, TIMESTAMP = ColumnType.TEXT, ColumnType.MONEY, ColumnType.TIMESTAMP
NOON = datetime(2026, 3, 3, 12)  # noqa: DTZ001  local time
TITLES = (
    *("Request", "Case", "Payee", "Category", "Description", "Amount", "Status", "Requested", "Approved"),
    *("Approved by", "Paid"),
)
TYPES = (TEXT, TEXT, TEXT, TEXT, TEXT, MONEY, TEXT, TIMESTAMP, TIMESTAMP, TEXT, TIMESTAMP)
STATUSES = ("pending", "approved", "denied", "cancelled", "paid")
CATEGORIES = ("Monthly allowance", "Medical reimbursement", "Lost wages", "Travel", "Maternity clothing")
DESCRIPTIONS = ("Mileage", "Monthly allowance for March", "Reimbursement of co-pay at Northside Women's Hospital")


def row(number: int, payee: str = "Christopher Montgomery") -> tuple[object, ...]:
    time = NOON + timedelta(hours=7 * number)
    return (
        *(number, f"ST-2026-{number:05}", payee, CATEGORIES[number % 5], DESCRIPTIONS[number % 3]),
        *(1_234_567 + number, STATUSES[number % 5], time, time, "user:1207", time),
    )


def write(path: Path, rows: list[tuple[object, ...]], *totals: Total) -> list[str]:
    """Write a report of disbursements and return the text of its pages."""
    columns = [Column(title, column_type, 20) for title, column_type in zip(TITLES, TYPES, strict=True)]
    report = Report("Disbursements", "Requested all time", NOON, columns, totals, select())
    write_pdf(report, iter(rows), path)
    return [page.extract_text() for page in PdfReader(path).pages]


def test_words_dates_and_titles_are_whole(tmp_path: Path) -> None:
    pages = write(tmp_path / "report.pdf", [row(number) for number in range(762)])
    assert len(pages) < 35
    for title in TITLES:
        assert all(title in page for page in pages)
    text = "\n".join(pages)
    for number in range(762):
        values = row(number)
        assert str(values[1]) in text
        assert f"{values[7]:%b %d, %Y %H:%M}" in text
    for word in {*STATUSES, "reimbursement", "Montgomery", "Northside", "user:1207"}:
        assert text.count(word) >= 762 // 5


@pytest.mark.parametrize("script", NAMES)
def test_names_of_payees_are_in_the_table(tmp_path: Path, script: str) -> None:
    (page,) = write(tmp_path / "report.pdf", [row(1, NAMES[script])])
    assert set(NAMES[script]) - set(page) == set()


def test_totals_that_fill_more_than_a_line_are_whole(tmp_path: Path) -> None:
    totals = [Total(f"Status {number}", MONEY, 2**63 - 1 - number) for number in range(9)]
    (page,) = write(tmp_path / "report.pdf", [row(1)], *totals)
    for number in range(9):
        assert f"Status {number}" in page
        assert f"$92,233,720,368,547,758.0{7 - number}" in page or number > 7


def test_text_of_one_word_fills_its_column_and_no_other(tmp_path: Path) -> None:
    pages = write(tmp_path / "report.pdf", [row(1), (*row(2)[:4], "x" * 2_000, *row(2)[5:])])
    text = "".join(pages)
    assert text.count("x") >= 2_000
    assert "cancelled" not in text
    assert "Christopher" in text
