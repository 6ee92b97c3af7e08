"""Builds one report's file: reads its rows in pages from one database snapshot and hands them to the format."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from sqlalchemy.orm import Session

from seedtrust_ops.domain.reports.csv_writer import write_csv
from seedtrust_ops.domain.reports.parameters import UnusableRequest
from seedtrust_ops.domain.reports.pdf_writer import write_pdf
from seedtrust_ops.domain.reports.report_content import Report, format_value
from seedtrust_ops.domain.reports.xlsx_writer import write_xlsx

PREVIEWED = 10
PAGE = 2_000
LONGEST_SECONDS = 540.0
"""Shorter than the 10 minutes after which a worker is taken for dead, so that no two ever build one request."""
MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "pdf": "application/pdf",
}
Rows = Iterator[tuple[Any, ...]]
_WRITERS: dict[str, Callable[[Report, Rows, Path], None]] = {"csv": write_csv, "xlsx": write_xlsx, "pdf": write_pdf}


@dataclass(frozen=True)
class BuiltReport:
    """A report's file, and what people are shown of it; `preview` has the first rows in words."""

    report: Report
    path: Path
    filename: str
    media_type: str
    rows: int
    size: int
    sha256: str
    preview: list[list[str]]


def build_report(session: Session, report: Report, format_name: str, folder: Path) -> BuiltReport:
    """Write `report` into a file in `folder`; memory does not grow with the rows, except for a pdf, which is bounded.

    Raises:
        UnusableRequest: where the format can't hold the report, or building takes too long.
    """
    path = folder / f"report.{format_name}"
    counted = _Counted(report, _stream(session, report))
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
    for page in session.execute(report.rows, execution_options={"yield_per": PAGE}).partitions():
        yield from (tuple(row) for row in page)
    # What comes now, zipping a workbook or setting a PDF, may take longer than the server lets a transaction idle.
    session.rollback()


class _Counted:
    """Rows on their way into a file: counted, the first ones kept in words, and broken off when they take too long."""

    def __init__(self, report: Report, rows: Rows) -> None:
        self.rows = 0
        self.preview: list[list[str]] = []
        self._report = report
        self._source = rows

    def __iter__(self) -> Rows:
        end = monotonic() + LONGEST_SECONDS
        for row in self._source:
            self.rows += 1
            if self.rows <= PREVIEWED:
                self.preview.append(
                    [format_value(column.shape, value) for column, value in zip(self._report.columns, row, strict=True)]
                )
            if self.rows % PAGE == 0 and monotonic() > end:
                raise UnusableRequest(
                    f"The report was not ready after {LONGEST_SECONDS / 60:g} minutes and {self.rows:,} rows. Ask for "
                    "a shorter period, or for csv, which is the fastest."
                )
            yield row
