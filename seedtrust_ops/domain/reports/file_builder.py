"""Builds the file of one report: reads its rows in pages from one database snapshot and passes them to the writer.

What the columns are is in `report_kinds`; storing and emailing the file is in `generator`.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from sqlalchemy.orm import Session

from seedtrust_ops.domain.reports.csv_writer import write_csv
from seedtrust_ops.domain.reports.parameters import InvalidReportRequest
from seedtrust_ops.domain.reports.pdf_writer import write_pdf
from seedtrust_ops.domain.reports.report_content import Report, format_value
from seedtrust_ops.domain.reports.xlsx_writer import write_xlsx
from seedtrust_ops.formatting import single_line

PREVIEW_ROWS = 10
MAX_PREVIEW_CHARACTERS = 200
PAGE_ROWS = 2_000
MAX_BUILD_SECONDS = 540.0
"""Shorter than the 10 minutes after which a request is claimed again, so that two workers never build the same one."""
MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "pdf": "application/pdf",
}
Rows = Iterator[tuple[Any, ...]]
_WRITERS: dict[str, Callable[[Report, Rows, Path], None]] = {"csv": write_csv, "xlsx": write_xlsx, "pdf": write_pdf}


@dataclass(frozen=True)
class BuiltReport:
    """A report's file and its summary; `size` is in bytes, and `preview` has the first rows formatted for people."""

    report: Report
    path: Path
    filename: str
    media_type: str
    rows: int
    size: int
    sha256: str
    preview: list[list[str]]


def build_report(session: Session, report: Report, format_name: str, folder: Path) -> BuiltReport:
    """Write `report` to a file in `folder`. Memory use does not grow with the rows, except for a PDF, which is capped.

    Raises:
        InvalidReportRequest: the report is too large for the format, or building takes too long.
    """
    path = folder / f"report.{format_name}"
    counted = _CountedRows(report, _stream(session, report))
    _WRITERS[format_name](report, iter(counted), path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return BuiltReport(
        report=report,
        path=path,
        filename=f"{report.stem}.{format_name}",
        media_type=MEDIA_TYPES[format_name],
        rows=counted.rows,
        size=path.stat().st_size,
        sha256=digest.hexdigest(),
        preview=counted.preview,
    )


def _stream(session: Session, report: Report) -> Rows:
    for page in session.execute(report.rows, execution_options={"yield_per": PAGE_ROWS}).partitions():
        yield from (tuple(row) for row in page)
    # Zipping a workbook or laying out a PDF may take longer than the server allows an idle transaction.
    session.rollback()


class _CountedRows:
    """Counts the rows on their way to the file, keeps the first ones as a preview, and enforces the time limit."""

    def __init__(self, report: Report, rows: Rows) -> None:
        self.rows = 0
        self.preview: list[list[str]] = []
        self._report = report
        self._source = rows

    def __iter__(self) -> Rows:
        end = monotonic() + MAX_BUILD_SECONDS
        for row in self._source:
            self.rows += 1
            if self.rows <= PREVIEW_ROWS:
                self.preview.append(
                    [
                        single_line(format_value(column.type, value), MAX_PREVIEW_CHARACTERS)
                        for column, value in zip(self._report.columns, row, strict=True)
                    ]
                )
            if self.rows % PAGE_ROWS == 0 and monotonic() > end:
                raise InvalidReportRequest(
                    f"The report was not finished after {MAX_BUILD_SECONDS / 60:g} minutes and {self.rows:,} rows. "
                    "Request a shorter period, or CSV, which is the fastest format."
                )
            yield row
