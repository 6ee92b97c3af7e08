"""Brings rows and lists of ids from Python into SQL as arrays of a fixed shape, however many they are.

A statement over it is compiled once and cached; `VALUES` with its varying number of parameters is compiled anew
for every length.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, SQLColumnExpression, TableValuedAlias, bindparam, column, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine


def in_array(
    column_: SQLColumnExpression[int] | SQLColumnExpression[int | None], numbers: Iterable[int]
) -> ColumnElement[bool]:
    """Return the condition that `column_` is one of `numbers`, however many: they are one parameter, an array."""
    return column_ == func.any(bindparam(None, list(numbers), type_=ARRAY(BigInteger()), unique=True))


def array_table(
    name: str, columns: Sequence[tuple[str, TypeEngine[Any]]], rows: Iterable[Sequence[Any]]
) -> TableValuedAlias:
    """Return a table `name` with these typed columns that holds `rows`, to join with or select from."""
    listed = list(rows)
    arrays = [
        bindparam(None, [row[place] for row in listed], type_=ARRAY(type_, dimensions=1), unique=True)
        for place, (_, type_) in enumerate(columns)
    ]
    return (
        func.unnest(*arrays)
        .table_valued(*(column(column_name, type_) for column_name, type_ in columns))
        .render_derived(name=name)
    )
