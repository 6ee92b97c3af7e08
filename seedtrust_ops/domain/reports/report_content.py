"""The content of a report in any format: title, typed columns, totals, and the query for its rows."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import Select

from seedtrust_ops.formatting import format_dollars

JOINERS = "\u200c\u200d"
"""Invisible, and part of how words are spelled in Persian, Hindi, Malayalam or Sinhala."""
_UNKNOWN_LETTERS = ("Co", "Cn")
"""The Unicode categories of characters that only some fonts have: for private use, or not yet assigned."""


class ColumnType(StrEnum):
    """How a column's values are formatted: money is integer cents, a timestamp is local time without a zone."""

    TEXT = "text"
    MONEY = "money"
    TIMESTAMP = "timestamp"
    NUMBER = "number"


@dataclass(frozen=True)
class Column:
    """One column; `width` is its width in a workbook, in characters."""

    title: str
    type: ColumnType
    width: int


@dataclass(frozen=True)
class Total:
    """A figure over all rows, shown above them."""

    title: str
    type: ColumnType
    value: int


@dataclass(frozen=True)
class Chart:
    """A line chart of two columns, given by their indexes: the timestamp and the amount in cents."""

    title: str
    timestamp: int
    cents: int


@dataclass(frozen=True)
class Report:
    """One report, ready to be written; `about` describes what was requested, `as_of` is local time."""

    title: str
    about: str
    as_of: datetime
    columns: Sequence[Column]
    totals: Sequence[Total]
    rows: Select[*tuple[Any, ...]]
    chart: Chart | None = None

    @property
    def stem(self) -> str:
        """The file name without its extension."""
        words = f"{self.title} {self.about}" if self.chart is not None else self.title
        plain = "".join(character if character.isascii() and character.isalnum() else " " for character in words)
        return "-".join([*plain.lower().split()[:8], f"{self.as_of:%Y-%m-%d}"])


def format_value(column_type: ColumnType, value: Any) -> str:
    """Return a value formatted for people; None is an empty string."""
    if value is None:
        return ""
    if column_type is ColumnType.MONEY:
        return format_dollars(value)
    if column_type is ColumnType.TIMESTAMP:
        return f"{value:%b %d, %Y %H:%M}"
    if column_type is ColumnType.NUMBER and isinstance(value, int | Decimal):
        return f"{value:,}"
    return _without_controls(str(value))


def _without_controls(text: str) -> str:
    """Return the text with a space in place of control characters, and with every letter that may be in a name."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in JOINERS or unicodedata.category(one) in _UNKNOWN_LETTERS else " "
        for one in text
    )
