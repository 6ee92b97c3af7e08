"""The types of platform columns that people fill without a limit: what is loaded of them is cut in the database.

So no row of 200 MB can stop a job, whatever it selects. Conditions and updates in SQL see the whole value.
See docs/decisions/user-text.md.
"""

import json
from typing import Any

from sqlalchemy import ColumnElement, Dialect, SQLColumnExpression, Text, TypeDecorator, case, func, literal_column
from sqlalchemy.dialects.postgresql import JSONB

from seedtrust_ops.formatting import MAX_TEXT_CHARS, shorten

MAX_STORED_JSON_BYTES = 8_192
"""The most bytes, as stored, of a JSON value that is loaded; compressed as they are, they are less than 3 MB."""


class UserText(TypeDecorator[str]):
    """Text of which the first `max_chars` characters are loaded, with an ellipsis as the last one if there are more.

    To load more or less of a column, select `type_coerce(column, UserText(max_chars))`. A cut value must not be
    compared or written back: what is compared with it must be cut in the same way.
    """

    impl = Text
    cache_ok = True

    def __init__(self, max_chars: int = MAX_TEXT_CHARS) -> None:
        """Set how many characters are loaded."""
        super().__init__()
        self.max_chars = max_chars

    def column_expression(self, column: ColumnElement[str]) -> ColumnElement[str]:
        """Return what is selected in place of `column` in the columns of the outermost SELECT or RETURNING."""
        return _left(column, self.max_chars, self)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Return what was selected, with an ellipsis if it was longer."""
        return None if value is None else shorten(value, self.max_chars)


class UserJson(TypeDecorator[Any]):
    """A JSON value that is loaded only if it is stored in MAX_STORED_JSON_BYTES; a larger one is loaded as None."""

    impl = JSONB
    cache_ok = True

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return what is selected in place of `column` in the columns of the outermost SELECT or RETURNING."""
        return case((func.pg_column_size(column) <= MAX_STORED_JSON_BYTES, column))


def load_json(text: str | bytes) -> Any:
    """Return the value of a JSON text, or None if Python cannot load it, such as a number of 5,000 digits."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def cut_text(column: SQLColumnExpression[Any]) -> ColumnElement[str]:
    """Return `column` cut to MAX_TEXT_CHARS, for SQL that builds a value from it, such as JSON or an array.

    One more character is kept, so that code that shows or compares it sees that it was cut.
    """
    return _left(column, MAX_TEXT_CHARS, Text())


def _left(column: SQLColumnExpression[Any], max_chars: int, type_: Any) -> ColumnElement[str]:
    # A constant, so that GROUP BY recognizes the same expression. Of a large text only the beginning is decompressed.
    return func.left(column, literal_column(str(max_chars + 1)), type_=type_)
