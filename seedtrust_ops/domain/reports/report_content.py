"""What is in a report, whatever the format: a title, columns with their shapes, totals, and the query of its rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import Select

from seedtrust_ops.formatting import strip_control_chars


class Shape(StrEnum):
    """How a column's values are written: money is integer cents, a moment is the office's wall clock, without zone."""

    TEXT = "text"
    MONEY = "money"
    MOMENT = "moment"
    NUMBER = "number"


@dataclass(frozen=True)
class Column:
    """One column; `width` in characters."""

    title: str
    shape: Shape
    width: int


@dataclass(frozen=True)
class Total:
    """A figure over all rows, shown above them."""

    title: str
    shape: Shape
    value: int


@dataclass(frozen=True)
class Chart:
    """A line through two columns of the rows, by their places: when, and cents."""

    title: str
    moment: int
    cents: int


@dataclass(frozen=True)
class Report:
    """One report, ready to be written; `about` says in words what was asked for, `as_of` is by the office's clock."""

    title: str
    about: str
    as_of: datetime
    columns: Sequence[Column]
    totals: Sequence[Total]
    rows: Select[*tuple[Any, ...]]
    chart: Chart | None = None

    @property
    def stem(self) -> str:
        """The name of its file, without the ending."""
        words = f"{self.title} {self.about}" if self.chart is not None else self.title
        plain = "".join(character if character.isascii() and character.isalnum() else " " for character in words)
        return "-".join([*plain.lower().split()[:8], f"{self.as_of:%Y-%m-%d}"])


def format_value(shape: Shape, value: Any) -> str:
    """Return a value as people read it; None is an empty text."""
    if value is None:
        return ""
    if shape is Shape.MONEY:
        return dollars(value)
    if shape is Shape.MOMENT:
        return f"{value:%b %d, %Y %H:%M}"
    return (
        f"{value:,}" if shape is Shape.NUMBER and isinstance(value, int | Decimal) else strip_control_chars(str(value))
    )


def dollars(cents: int) -> str:
    """Return cents as people write money: -123456 is -$1,234.56."""
    return f"{'-' if cents < 0 else ''}${abs(cents) // 100:,}.{abs(cents) % 100:02}"
