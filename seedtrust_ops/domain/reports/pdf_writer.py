"""Writes a report as a PDF for printing, in US letter size: totals and a chart, then the rows, on numbered pages.

How text is set is in `pdf_text`, how wide the columns are in `pdf_columns`.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from seedtrust_ops.domain.reports.balance_chart import draw_balances
from seedtrust_ops.domain.reports.parameters import InvalidReportRequest
from seedtrust_ops.domain.reports.pdf_columns import ColumnContent, fit_columns
from seedtrust_ops.domain.reports.pdf_text import FONT, TextPdf, split_words
from seedtrust_ops.domain.reports.report_content import Column, ColumnType, Report, format_value
from seedtrust_ops.formatting import shorten

MAX_ROWS = 10_000
"""About 300 pages. A PDF is held in memory until it is complete."""
MAX_PAGES = 1_000
"""Rows with long texts fill a page each."""
MAX_TEXT_CHARACTERS = 2_000
"""More does not fit into a column of one page."""
MAX_MEASURED_CHARACTERS = 200
"""A longer text fills several lines in any case, and many of them would take minutes to measure."""
MARGIN = 12.0
LINE_SPACING = 1.25
ROW_PADDING = 1.4
HEADER_HEIGHT = 6.0
TOTAL_WIDTH = 42.0
MAX_WORD_WIDTH = 60.0
"""In BASE_SIZE. A column is as wide as its longest word, up to this: longer ones, such as web addresses, are broken."""
BASE_SIZE = 10.0
"""In points: the size in which texts are measured, before the size is known in which they fit."""
DARK = (31, 58, 77)
GREY = (110, 110, 110)
BLACK = (30, 30, 30)
RED = (170, 40, 30)
ZEBRA = (243, 246, 248)


def write_pdf(report: Report, rows: Iterator[tuple[Any, ...]], path: Path) -> None:
    """Write `rows` to `path`; raises InvalidReportRequest if there are more than `MAX_ROWS`, or `MAX_PAGES`."""
    held = list(islice(rows, MAX_ROWS + 1))
    if len(held) > MAX_ROWS:
        raise InvalidReportRequest(
            f"The report has more than {MAX_ROWS:,} rows, the limit for a PDF. Request XLSX or CSV, or a shorter "
            "period."
        )
    pages = _Pages(report)
    pages.add_page()
    pages.write_totals()
    if report.chart is not None and len(held) > 1:
        pages.image(draw_balances(report.chart, held), x=MARGIN, w=pages.epw)
        pages.ln(3)
    pages.write_table(held)
    pages.output(str(path))


class _Pages(TextPdf):
    """Landscape pages: the title on the first, the table header on every page with rows, and page numbers."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report
        self.about = self.printable(report.about)
        self.size = self.line_height = BASE_SIZE
        self.widths: list[float] = []
        self.set_margin(MARGIN)
        self.set_auto_page_break(False)
        self.set_title(f"{report.title}: {report.about}")

    def header(self) -> None:
        """Write the report title: large on the first page, small on the others."""
        first = self.page_no() == 1
        self.set_text_color(*DARK)
        self.set_font(FONT, "B", 17 if first else 10)
        title = f"SeedTrust: {self.report.title}" if first else f"{self.report.title}: {self.about}"
        self._write_line(title, 9 if first else 6)
        if first:
            self.set_text_color(*GREY)
            self.set_font(FONT, "", 10)
            self._write_line(f"{self.about}. As of {self.report.as_of:%B %d, %Y at %H:%M}.", 6)
        self.ln(2)

    def footer(self) -> None:
        """Write the page number."""
        self.set_y(-10)
        self.set_font(FONT, "", 8)
        self.set_text_color(*GREY)
        self.cell(0, 5, f"Page {self.page_no()} of {self.str_alias_nb_pages}", align="R")

    def write_totals(self) -> None:
        """Write the totals beside each other, each under its title, in as many lines as they need."""
        left = MARGIN
        for total in self.report.totals:
            text = self.printable(format_value(total.type, total.value))
            title = self.printable(total.title)
            self.set_font(FONT, "B", 12)
            width = max(self.text_width(text) + 4, TOTAL_WIDTH)
            if left + width > self.w - MARGIN:
                left = MARGIN
                self.ln(12)
            top = self.get_y()
            self.set_text_color(*DARK)
            self.draw(text, left, top + 5, width, 6)
            self.set_font(FONT, "", 9)
            self.set_text_color(*GREY)
            self.draw(title, left, top, width, 6)
            self.set_xy(MARGIN, top)
            left += width
        self.ln(15)

    def write_table(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write the rows; raises InvalidReportRequest if they fill more than `MAX_PAGES`."""
        columns = self.report.columns
        texts = [[self._cell_text(column, value) for column, value in zip(columns, row, strict=True)] for row in rows]
        content = [self._measure(column, [row[index] for row in texts]) for index, column in enumerate(columns)]
        self.size, self.widths = fit_columns(content, self.epw, 2 * self.c_margin)
        self.line_height = LINE_SPACING * self.size / self.k
        self._write_table_header()
        for number, (row, values) in enumerate(zip(texts, rows, strict=True)):
            self._write_row(row, values, shaded=number % 2 == 1)
            if self.page_no() > MAX_PAGES:
                raise InvalidReportRequest(
                    f"The report has more than {MAX_PAGES:,} pages, the limit for a PDF. Request XLSX or CSV, or a "
                    "shorter period."
                )
        if not rows:
            self.set_font(FONT, "", self.size)
            self.set_text_color(*GREY)
            self._write_line("No rows.", 8)

    def _cell_text(self, column: Column, value: Any) -> str:
        text = format_value(column.type, value)
        return self.printable(shorten(" ".join(text.split()), MAX_TEXT_CHARACTERS))

    def _measure(self, column: Column, texts: Sequence[str]) -> ColumnContent:
        self.set_font(FONT, "B", BASE_SIZE)
        title = self.text_width(column.title)
        self.set_font(FONT, "", BASE_SIZE)
        texts = [text[:MAX_MEASURED_CHARACTERS] for text in texts]
        width_of = {text: self.text_width(text) for text in set(texts)}
        if column.type is ColumnType.TEXT:
            words = {word for text in width_of for word in split_words(text)}
            least = min(max((self.text_width(word) for word in words), default=0.0), MAX_WORD_WIDTH)
        else:
            least = max(width_of.values(), default=0.0)
        return ColumnContent([width_of[text] / BASE_SIZE for text in texts], max(title, least) / BASE_SIZE)

    def _write_table_header(self) -> None:
        self.set_font(FONT, "B", self.size)
        top, left = self.get_y(), MARGIN
        self.set_fill_color(*DARK)
        self.rect(MARGIN, top, self.epw, HEADER_HEIGHT, style="F")
        self.set_text_color(255, 255, 255)
        for column, width in zip(self.report.columns, self.widths, strict=True):
            self.draw(column.title, left, top, width, HEADER_HEIGHT, align=_align(column))
            left += width
        self.set_xy(MARGIN, top + HEADER_HEIGHT)

    def _write_row(self, texts: Sequence[str], values: tuple[Any, ...], *, shaded: bool) -> None:
        """Write one row, on the next page if it does not fit; text too long for its column wraps."""
        self.set_font(FONT, "", self.size)
        cells = [self._lines(text, width) for text, width in zip(texts, self.widths, strict=True)]
        height = ROW_PADDING + self.line_height * max([1, *map(len, cells)])
        if self.get_y() + height > self.h - MARGIN:
            self.add_page()
            self._write_table_header()
            self.set_font(FONT, "", self.size)
        top, left = self.get_y(), MARGIN
        if shaded:
            self.set_fill_color(*ZEBRA)
            self.rect(MARGIN, top, self.epw, height, style="F")
        for column, width, lines, value in zip(self.report.columns, self.widths, cells, values, strict=True):
            is_negative = column.type is ColumnType.MONEY and value is not None and value < 0
            self.set_text_color(*(RED if is_negative else BLACK))
            for number, line in enumerate(lines):
                line_top = top + ROW_PADDING / 2 + number * self.line_height
                self.draw(line, left, line_top, width, self.line_height, align=_align(column))
            left += width
        self.set_xy(MARGIN, top + height)

    def _lines(self, text: str, width: float) -> list[str]:
        if not text:
            return []
        lines = self.wrap(text, width - 2 * self.c_margin)
        max_lines = int((self.h - 4 * MARGIN) / self.line_height) - 4
        return lines if len(lines) <= max_lines else [*lines[: max_lines - 1], "…"]

    def _write_line(self, text: str, height: float) -> None:
        top = self.get_y()
        self.draw(text, MARGIN, top, self.epw, height)
        self.set_xy(MARGIN, top + height)


def _align(column: Column) -> str:
    return "R" if column.type in (ColumnType.MONEY, ColumnType.NUMBER) else "L"
