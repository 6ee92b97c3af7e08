"""The widths of columns: nothing is broken that can stay whole, and the table is as short as it can be."""

import pytest

from seedtrust_ops.domain.reports.pdf_columns import SIZES, ColumnContent, fit_columns

PAGE, MARGINS = 255.0, 2.0


def test_columns_fill_the_page_and_hold_their_longest_word() -> None:
    columns = [ColumnContent([width] * 5, width) for width in (1.0, 2.5, 6.0)]
    size, widths = fit_columns(columns, PAGE, MARGINS)
    assert size == SIZES[0]
    assert sum(widths) == pytest.approx(PAGE)
    assert all(width - MARGINS >= size * column.least for width, column in zip(widths, columns, strict=True))


def test_more_words_than_fit_are_printed_smaller() -> None:
    columns = [ColumnContent([4.0], 4.0) for _ in range(9)]
    size, widths = fit_columns(columns, PAGE, MARGINS)
    assert SIZES[-1] <= size < SIZES[0]
    assert all(width - MARGINS >= size * 4.0 for width in widths)


def test_words_too_long_for_the_page_narrow_no_short_ones() -> None:
    columns = [ColumnContent([2.0], 2.0), ColumnContent([40.0], 40.0), ColumnContent([60.0], 60.0)]
    size, (short, *long) = fit_columns(columns, PAGE, MARGINS)
    assert size == SIZES[-1]
    assert short - MARGINS >= size * 2.0
    assert short + sum(long) == pytest.approx(PAGE)
    assert long[0] == pytest.approx(long[1], abs=1)


def test_space_goes_to_the_column_with_most_to_wrap() -> None:
    """A few long names get less of it than descriptions that are long in every row."""
    names = ColumnContent([3.0] * 95 + [30.0] * 5, 3.0)
    descriptions = ColumnContent([25.0] * 100, 3.0)
    _, widths = fit_columns([names, descriptions], 150, MARGINS)
    assert widths[1] > 3 * widths[0]


def test_table_without_rows_is_fitted_to_its_titles() -> None:
    _, widths = fit_columns([ColumnContent([], 2.0), ColumnContent([], 4.0)], PAGE, MARGINS)
    assert sum(widths) == pytest.approx(PAGE)
