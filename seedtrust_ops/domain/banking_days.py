"""The days on which the Federal Reserve settles payments between banks: weekdays that are none of its holidays.

A holiday on a Saturday closes the banks on no other day, one on a Sunday closes them on Monday. How many banking days
a transfer may take is in `transfers/settlement_deadlines`.
"""

from datetime import date, timedelta
from functools import cache

import holidays


def is_banking_day(day: date) -> bool:
    """Return whether the Federal Reserve is open on a day."""
    return day.weekday() < 5 and day not in _holidays_of(day.year)


def add_banking_days(day: date, count: int) -> date:
    """Return the `count`th banking day after `day`, or before it if `count` is negative.

    `day` itself need not be a banking day and never counts; a `count` of 0 returns it unchanged.
    """
    step = timedelta(days=1 if count > 0 else -1)
    for _ in range(abs(count)):
        day += step
        while not is_banking_day(day):
            day += step
    return day


@cache
def _holidays_of(year: int) -> frozenset[date]:
    # An object per year, because one that several threads fill at once answers wrongly meanwhile.
    return frozenset(holidays.financial_holidays("XFED", years=year))
