"""Banking days: the Federal Reserve's own calendar, which no list of federal holidays is."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest

from seedtrust_ops.domain import banking_days
from seedtrust_ops.domain.banking_days import add_banking_days, is_banking_day

# From the tests of moov-io/base (time_test.go, Apache License 2.0), except where another source is named.
DAYS = [
    ("2018-01-01", False),
    ("2018-01-03", True),
    ("2018-01-06", False),
    ("2018-01-15", False),
    ("2018-02-19", False),
    ("2018-05-28", False),
    ("2018-07-04", False),
    ("2018-09-03", False),
    ("2018-10-08", False),
    ("2018-11-12", False),
    ("2018-11-22", False),
    ("2018-12-25", False),
    ("2023-11-10", True),  # the Friday before Veterans Day, which is a Saturday
    ("2026-12-24", True),
    ("2026-12-25", False),
    ("2026-12-28", True),
    ("2026-07-03", True),  # from the Federal Reserve: July 4 is a Saturday
]
SUMS = [
    ("2018-01-11", 1, "2018-01-12"),
    ("2018-01-11", 2, "2018-01-16"),
    ("2018-01-12", 2, "2018-01-17"),
    ("2021-07-02", 2, "2021-07-07"),
    ("2022-06-17", 1, "2022-06-21"),
    ("2021-07-02", 500, "2023-06-30"),
    ("2023-11-09", 1, "2023-11-10"),
]


@pytest.mark.parametrize(("day", "is_open"), DAYS)
def test_banking_days_are_those_of_the_federal_reserve(day: str, is_open: bool) -> None:
    assert is_banking_day(date.fromisoformat(day)) is is_open


@pytest.mark.parametrize(("day", "count", "expected"), SUMS)
def test_banking_days_are_added_and_subtracted_alike(day: str, count: int, expected: str) -> None:
    assert add_banking_days(date.fromisoformat(day), count).isoformat() == expected
    assert add_banking_days(date.fromisoformat(expected), -count).isoformat() == day


def test_banking_days_are_right_in_many_threads_at_once() -> None:
    banking_days._holidays_of.cache_clear()
    with ThreadPoolExecutor(16) as pool:
        assert not any(pool.map(lambda year: is_banking_day(date(year, 12, 25)), [2028, 2029, 2030, 2031] * 100))
