"""SQL on times and amounts that people may have typed, and that PostgreSQL cannot calculate with: `infinity`, 2^63 - 1.

One such row must not fail a query over many. How such times are loaded is in `tables/extreme_times`.
See docs/decisions/extreme-times.md.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    ColumnElement,
    Numeric,
    SQLColumnExpression,
    case,
    cast,
    func,
    literal_column,
)

_FIRST = literal_column("timestamptz '0001-01-01 00:00+00'", TIMESTAMP(timezone=True))
_LAST = literal_column("timestamptz '9999-12-31 00:00+00'", TIMESTAMP(timezone=True))
_EARLIEST_LOCAL = literal_column("timestamptz '4713-01-01 00:00+00 BC'", TIMESTAMP(timezone=True))
_LATEST_LOCAL = literal_column("timestamptz '294276-01-01 00:00+00'", TIMESTAMP(timezone=True))
_MAX_BIGINT = literal_column(str(2**63 - 1), Numeric())

Moment = SQLColumnExpression[datetime] | SQLColumnExpression[datetime | None] | SQLColumnExpression[Any]


def seconds_between(start: Moment, end: Moment) -> ColumnElement[Any]:
    """Return the seconds from one time to another, null if one is null, and a very large number for `infinity`."""
    return func.extract("epoch", _in_range(end) - _in_range(start))


def local_time(moment: Moment, zone: str) -> ColumnElement[Any]:
    """Return a time (timestamptz) as it is on a clock in `zone`; the earliest and latest possible ones stay in UTC."""
    is_shiftable = moment.between(_EARLIEST_LOCAL, _LATEST_LOCAL)
    return case((is_shiftable, func.timezone(zone, moment)), else_=func.timezone("UTC", moment))


def unless_far_ahead(moment: Moment) -> ColumnElement[Any]:
    """Return a time, or null if it is more than a day ahead: of what has happened already, that is a typing error."""
    return case((moment < func.now() + timedelta(days=1), moment))


def representable(moment: Moment) -> ColumnElement[Any]:
    """Return a time, or null if Python cannot represent it, for sessions of other applications."""
    return case((moment.between(_FIRST, _LAST), moment))


def cents_between(less: SQLColumnExpression[int], more: SQLColumnExpression[int]) -> ColumnElement[int]:
    """Return `more` - `less` as a bigint, of which the nearest one if the difference is none."""
    return capped_cents(cast(more, Numeric) - less)


def capped_cents(cents: SQLColumnExpression[Any]) -> ColumnElement[int]:
    """Return a numeric amount, such as a sum, as the nearest bigint."""
    return cast(func.greatest(func.least(cents, _MAX_BIGINT), -_MAX_BIGINT), BigInteger)


def _in_range(moment: Moment) -> ColumnElement[Any]:
    # `least` and `greatest` ignore null.
    return case((moment.is_not(None), func.least(func.greatest(moment, _FIRST), _LAST)))
