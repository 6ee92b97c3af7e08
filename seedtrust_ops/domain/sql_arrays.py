"""Passes lists of ids and rows from Python to SQL as array parameters, regardless of their number.

SQLAlchemy compiles and caches such a statement once; one with `VALUES` is compiled again for every number of rows.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    SQLColumnExpression,
    TableValuedAlias,
    bindparam,
    column,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine


def in_array(
    column_: SQLColumnExpression[int] | SQLColumnExpression[int | None], numbers: Iterable[int]
) -> ColumnElement[bool]:
    """Return the condition that `column_` is one of `numbers`, passed as one array parameter."""
    return column_ == func.any(bindparam(None, list(numbers), type_=ARRAY(BigInteger()), unique=True))


def array_parameter(values: Iterable[Any], type_: TypeEngine[Any]) -> BindParameter[Any]:
    """Return `values` as one array parameter."""
    return bindparam(None, list(values), type_=ARRAY(type_, dimensions=1), unique=True)


def array_table(
    name: str, columns: Sequence[tuple[str, TypeEngine[Any]]], rows: Iterable[Sequence[Any]]
) -> TableValuedAlias:
    """Return `rows` as a table `name` with these typed columns, to join with or select from."""
    listed = list(rows)
    arrays = [array_parameter((row[index] for row in listed), type_) for index, (_, type_) in enumerate(columns)]
    return (
        func.unnest(*arrays)
        .table_valued(*(column(column_name, type_) for column_name, type_ in columns))
        .render_derived(name=name)
    )
