"""Writes a report as a PDF for printing, in US letter size: totals and a chart, then the rows, on numbered pages."""

from collections.abc import Iterator
from datetime import datetime
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import matplotlib
from fpdf import FPDF
from fpdf.enums import XPos, YPos
from fpdf.fonts import TTFFont
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from seedtrust_ops.domain.reports.parameters import InvalidReportRequest
from seedtrust_ops.domain.reports.report_content import Chart, Column, ColumnType, Report, format_value
from seedtrust_ops.formatting import single_line

MAX_ROWS = 10_000
"""About 300 pages. A PDF is held in memory until it is complete."""
MAX_PAGES = 1_000
"""Rows with long texts fill a page each, and such a page takes a tenth of a second to lay out."""
MAX_TEXT_CHARACTERS = 2_000
"""More does not fit into a column of one page."""
CHART_BEGIN, CHART_END = datetime(1900, 1, 1), datetime(9000, 1, 1)  # noqa: DTZ001  local times
"""A time beyond these, which a person has typed, is drawn as the nearest one."""
MARGIN = 12.0
ROW_HEIGHT = 5.0
SIZE = 7.5
DARK = (31, 58, 77)
GREY = (110, 110, 110)
ZEBRA = (243, 246, 248)
FONT = "DejaVu"
"""The font bundled with matplotlib: the built-in PDF fonts cover Western European characters only.

It has no Chinese, Japanese, Korean, Thai or Indic characters. Those are printed as their code points, such as [U+674E],
because a name with boxes in it is nobody's.
"""
FONT_FOLDER = Path(matplotlib.get_data_path(), "fonts", "ttf")


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
    _write_totals(pages, report)
    if report.chart is not None and len(held) > 1:
        chart = _draw_chart(report.chart, held)
        pages.image(chart, x=MARGIN, w=pages.epw)
        pages.ln(3)
    pages.write_header()
    for number, row in enumerate(held):
        pages.write_row(row, shaded=number % 2 == 1)
        if pages.page_no() > MAX_PAGES:
            raise InvalidReportRequest(
                f"The report has more than {MAX_PAGES:,} pages, the limit for a PDF. Request XLSX or CSV, or a shorter "
                "period."
            )
    if not held:
        pages.set_text_color(*GREY)
        pages.cell(0, 8, "No rows.", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    pages.output(str(path))


class _Pages(FPDF):
    """Landscape pages: the title on the first, the table header on every page with rows, and page numbers."""

    def __init__(self, report: Report) -> None:
        super().__init__(orientation="landscape", unit="mm", format="letter")
        self.report = report
        self.set_margin(MARGIN)
        self.set_auto_page_break(False)
        self.add_font(FONT, "", FONT_FOLDER / "DejaVuSans.ttf")
        self.add_font(FONT, "B", FONT_FOLDER / "DejaVuSans-Bold.ttf")
        self.set_title(f"{report.title}: {report.about}")
        self.set_font(FONT, "", SIZE)
        self.alias_nb_pages()
        font = self.fonts[FONT.lower()]
        assert isinstance(font, TTFFont), "add_font made it"
        self.printable = font.cmap.keys()
        wanted = sum(column.width for column in report.columns)
        self.widths = [column.width / wanted * self.epw for column in report.columns]

    def header(self) -> None:
        """Write the report title: large on the first page, small on the others."""
        first = self.page_no() == 1
        self.set_text_color(*DARK)
        self.set_font(FONT, "B", 16 if first else 9)
        title = f"SeedTrust: {self.report.title}" if first else f"{self.report.title}: {self.report.about}"
        self.cell(0, 9 if first else 6, title, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        if first:
            self.set_text_color(*GREY)
            self.set_font(FONT, "", 9)
            about = f"{self.report.about}. As of {self.report.as_of:%B %d, %Y at %H:%M}."
            self.cell(0, 6, about, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self.ln(2)

    def footer(self) -> None:
        """Write the page number."""
        self.set_y(-10)
        self.set_font(FONT, "", 7)
        self.set_text_color(*GREY)
        self.cell(0, 5, f"Page {self.page_no()} of {{nb}}", align="R")

    def write_header(self) -> None:
        """Write the column titles."""
        self.set_font(FONT, "B", SIZE)
        self.set_fill_color(*DARK)
        self.set_text_color(255, 255, 255)
        for column, width in zip(self.report.columns, self.widths, strict=True):
            self.cell(width, ROW_HEIGHT + 1, column.title, align=_align(column), fill=True)
        self.ln(ROW_HEIGHT + 1)

    def write_row(self, row: tuple[Any, ...], *, shaded: bool) -> None:
        """Write one row, on the next page if it does not fit; text too long for its column wraps."""
        self.set_font(FONT, "", SIZE)
        cells = [
            self._lines(column, width, value)
            for column, width, value in zip(self.report.columns, self.widths, row, strict=True)
        ]
        height = ROW_HEIGHT * max(len(lines) for lines in cells)
        if self.get_y() + height > self.h - MARGIN:
            self.add_page()
            self.write_header()
            self.set_font(FONT, "", SIZE)
        top = self.get_y()
        if shaded:
            self.set_fill_color(*ZEBRA)
            self.rect(MARGIN, top, self.epw, height, style="F")
        left = MARGIN
        for column, width, lines, value in zip(self.report.columns, self.widths, cells, row, strict=True):
            is_negative = column.type is ColumnType.MONEY and value is not None and value < 0
            self.set_text_color(*((170, 40, 30) if is_negative else (30, 30, 30)))
            for number, line in enumerate(lines):
                self.set_xy(left, top + number * ROW_HEIGHT)
                self.cell(width, ROW_HEIGHT, line, align=_align(column))
            left += width
        self.set_xy(MARGIN, top + height)

    def _lines(self, column: Column, width: float, value: Any) -> list[str]:
        text = self._printable(single_line(format_value(column.type, value), MAX_TEXT_CHARACTERS))
        if self.get_string_width(text) <= width - 2 * self.c_margin:
            return [text]
        lines = self.multi_cell(width, ROW_HEIGHT, text, dry_run=True, output="LINES")
        assert isinstance(lines, list), "output='LINES' gives a list"
        max_lines = int((self.h - 3 * MARGIN) / ROW_HEIGHT) - 4
        return lines if len(lines) <= max_lines else [*lines[: max_lines - 1], "…"]

    def _printable(self, text: str) -> str:
        if text.isascii():
            return text
        return "".join(one if ord(one) in self.printable else f"[U+{ord(one):04X}]" for one in text)


def _align(column: Column) -> str:
    return "R" if column.type in (ColumnType.MONEY, ColumnType.NUMBER) else "L"


def _write_totals(pages: _Pages, report: Report) -> None:
    width = pages.epw / max(len(report.totals), 4)
    for size, style, color, texts in (
        (8, "", GREY, [total.title for total in report.totals]),
        (11, "B", DARK, [format_value(total.type, total.value) for total in report.totals]),
    ):
        pages.set_font(FONT, style, size)
        pages.set_text_color(*color)
        for text in texts:
            pages.cell(width, 6, text)
        pages.ln(6)
    pages.ln(3)


def _draw_chart(chart: Chart, rows: list[tuple[Any, ...]]) -> BytesIO:
    """Return a PNG step chart of the amounts: a balance holds until the next entry."""
    timestamps = [min(max(row[chart.timestamp], CHART_BEGIN), CHART_END) for row in rows]
    amounts = [row[chart.cents] / 100 for row in rows]
    figure = Figure(figsize=(10, 2.7), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.step(timestamps, amounts, where="post", color="#2f6f8f", linewidth=1.4)
    axes.fill_between(timestamps, amounts, step="post", color="#2f6f8f", alpha=0.12)
    axes.set_title(chart.title, loc="left", fontsize=10)
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.yaxis.set_major_formatter(lambda value, _place: f"-\\${-value:,.0f}" if value < 0 else f"\\${value:,.0f}")
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    png = BytesIO()
    figure.savefig(png, format="png")
    png.seek(0)
    return png
