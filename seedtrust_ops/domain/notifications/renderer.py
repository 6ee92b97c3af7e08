"""Renders an email's subject, plain text and HTML from its kind's templates, or its kind's table, and its variables.

Money is shown in dollars, days and times are written out in the office's time zone. Every error, such as a missing or
invalid variable, is raised as an `UnsendableEmail` with a message for people. What people typed is
one line, cut, and without links.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from textwrap import wrap
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, TemplateError, select_autoescape

from seedtrust_ops.domain.notifications.kind_registry import (
    KINDS,
    MAX_NAME_CHARS,
    MAX_SENTENCE_CHARS,
    Column,
    ColumnFormat,
    EmailKind,
    NotificationKind,
    TableEmailKind,
    find_example,
)
from seedtrust_ops.formatting import disarm_links, format_dollars, pluralize, single_line, strip_control_chars
from seedtrust_ops.tables.extreme_times import is_extreme

TEMPLATES = Path(__file__).parent / "templates"
MAX_SUBJECT_CHARS = 200
"""Mail servers reject lines of more than 998 characters (RFC 5322, 2.1.1)."""
TEXT_WIDTH = 72
_MAX_PADDED_WIDTH = 40
"""A longer value moves the rest of its own line in a plain-text table, not that of every other line."""
_TABLE_TEMPLATE = "_table_email"

# Nacha's meanings of the return codes that a payee's account can cause; other codes are shown without a meaning.
RETURN_REASONS = {
    "R01": "the payee's bank account has insufficient funds",
    "R02": "the payee's bank account is closed",
    "R03": "the account does not exist, or does not belong to the payee",
    "R04": "the account number is not valid",
    "R05": "a consumer account that did not authorize this entry",
    "R06": "returned at the request of the sending bank",
    "R07": "the payee has revoked the authorization",
    "R08": "the payee has stopped the payment",
    "R09": "the funds in the account are not yet available",
    "R10": "the payee says that the transfer was not authorized",
    "R16": "the payee's account is frozen",
    "R20": "the account does not accept transfers of this kind",
}


class UnsendableEmail(Exception):
    """This email can't be rendered or addressed; the message says why, for people."""


@dataclass(frozen=True)
class RenderedEmail:
    """An email as its recipient will read it."""

    subject: str
    text: str
    html: str


class EmailRenderer:
    """Renders emails with templates that are loaded once; an instance can be used for any number of emails."""

    def __init__(self, timezone: ZoneInfo) -> None:
        """Set the time zone in which times are shown."""
        self._timezone = timezone
        self._environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            undefined=StrictUndefined,
            finalize=_strip_text,
            autoescape=select_autoescape(["html.jinja"], default_for_string=False),
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self._environment.filters |= {
            "dollars": format_cents,
            "day": format_day,
            "date_time": self._format_time,
            "humanize": lambda name: str(name).replace("_", " "),
            "return_reason": lambda code: RETURN_REASONS.get(code, "the bank gave only the code"),
            "pluralize": pluralize,
            "wrapped": lambda text: wrap(text, TEXT_WIDTH),
            "quoted": lambda text: [f"> {line}" for line in wrap(text, TEXT_WIDTH - 2)],
        }
        self._cells: Mapping[ColumnFormat, Callable[[Any], str]] = {
            "text": lambda text: format_typed(text, MAX_NAME_CHARS),
            "sentence": lambda text: format_typed(text, MAX_SENTENCE_CHARS),
            "day": lambda day: _short_day(date.fromisoformat(day)),
            "date_time": self._format_short_time,
            "dollars": format_cents,
            "count": _format_count,
        }
        self._inline_templates: dict[str, Template] = {}

    def render(
        self,
        kind: str,
        variables: Mapping[str, Any],
        *,
        recipient_name: str = "",
        attachment_name: str | None = None,
        subject: str = "",
    ) -> RenderedEmail:
        """Return the email of this kind; an empty `subject` means the kind's default.

        Raises:
            UnsendableEmail: if the kind does not exist, or a variable is missing or invalid.
        """
        known = KINDS.get(kind)
        if known is None:
            raise UnsendableEmail(f"There is no email kind {kind!r}. The kinds are: {', '.join(KINDS)}.")
        _require_variables(known, variables)
        values = {**variables, "recipient_name": format_typed(recipient_name, MAX_NAME_CHARS)}
        if isinstance(known, NotificationKind):
            values |= {name: format_typed(values[name], limit) for name, limit in known.typed.items() if name in values}
        if attachment_name is not None:
            values["attachment_name"] = attachment_name
        try:
            if isinstance(known, TableEmailKind):
                values |= self._table_values(known, variables)
            values["email_subject"] = single_line(subject or self._inline(known.subject, values), MAX_SUBJECT_CHARS)
            template = _TABLE_TEMPLATE if isinstance(known, TableEmailKind) else kind
            return RenderedEmail(
                subject=values["email_subject"],
                text=self._environment.get_template(f"{template}.txt.jinja").render(values).strip() + "\n",
                html=self._environment.get_template(f"{template}.html.jinja").render(values),
            )
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise UnsendableEmail(f"The email ({kind}) can't be rendered: {single_line(str(error))}.") from error

    def render_example(self, name: str) -> RenderedEmail:
        """Return the example email with this name; raises `UnknownPreview`, which lists the valid names."""
        example = find_example(name)
        return self.render(
            example.kind,
            example.variables,
            recipient_name="Maria Alvarez",
            attachment_name=example.attachment_name,
        )

    def _table_values(self, kind: TableEmailKind, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the table templates need, every cell formatted."""
        rows, left_out = variables["rows"], variables.get("rows_left_out", 0)
        values = {**variables, "rows_left_out": left_out, "count": len(rows) + left_out}
        cells = [
            [self._format_cell(column, row, number) for column in kind.columns] for number, row in enumerate(rows, 1)
        ]
        return values | {
            "columns": kind.columns,
            "cells": cells,
            "text_table": _text_table(kind.columns, cells),
            "introduction": self._inline(kind.introduction, values),
            "why": self._inline(kind.why, values),
        }

    def _format_cell(self, column: Column, row: Mapping[str, Any], number: int) -> str:
        if column.name not in row:
            raise ValueError(f"row {number} has no {column.name}")
        value = row[column.name]
        try:
            return "-" if value is None else single_line(self._cells[column.format](value))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{column.name} of row {number} is invalid: {error}") from error

    def _inline(self, source: str, values: Mapping[str, Any]) -> str:
        """Render a subject or a sentence of a kind as plain text."""
        if source not in self._inline_templates:
            self._inline_templates[source] = self._environment.from_string(source)
        return self._inline_templates[source].render(values)

    def _format_time(self, text: str) -> str:
        if is_extreme(text):
            return text
        local = self._local_time(text)
        return f"{local:%B} {local.day}, {local.year} at {_clock(local)}"

    def _format_short_time(self, text: str) -> str:
        if is_extreme(text):
            return text
        local = self._local_time(text)
        return f"{_short_day(local)}, {_clock(local)}"

    def _local_time(self, text: str) -> datetime:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            raise ValueError(f"the time {text} has no offset from UTC")
        return time.astimezone(self._timezone)


def format_cents(cents: int) -> str:
    """Return cents as US dollars: -123456 is -$1,234.56. Raises TypeError for anything but an integer."""
    if not isinstance(cents, int) or isinstance(cents, bool):
        raise TypeError(f"{cents} is not a whole number of cents")
    return format_dollars(cents)


def format_day(day: str) -> str:
    """Return YYYY-MM-DD as Tuesday, March 3, 2026. Raises ValueError if it is not a date.

    A date that Python cannot represent, such as `-infinity`, is shown as it is.
    """
    if is_extreme(day):
        return day
    parsed = date.fromisoformat(day)
    return f"{parsed:%A}, {parsed:%B} {parsed.day}, {parsed.year}"


def format_typed(text: object, max_chars: int) -> str:
    """Return what somebody typed as one line of at most `max_chars`, in which no mail program finds a link."""
    return "" if text is None else single_line(disarm_links(str(text)), max_chars)


def _short_day(day: date) -> str:
    return f"{day:%b} {day.day}, {day.year}"


def _clock(time: datetime) -> str:
    return f"{time:%I:%M %p %Z}".removeprefix("0")


def _format_count(count: int) -> str:
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"{count} is not a whole number")
    return f"{count:,}"


def _text_table(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of the table in plain text, headings first."""
    lines = [[column.heading for column in columns], *cells]
    widths = [min(_MAX_PADDED_WIDTH, max(map(len, values))) for values in zip(*lines, strict=True)]
    return [
        "  ".join(
            value.rjust(width) if column.is_number else value.ljust(width)
            for column, width, value in zip(columns, widths, line, strict=True)
        ).rstrip()
        for line in lines
    ]


def _strip_text(value: Any) -> Any:
    """Return `value` without control characters, so that no user's text can add a line to an email."""
    # A macro's output is a subclass of str that our own templates wrote.
    return strip_control_chars(value) if type(value) is str else value


def _require_variables(kind: EmailKind, variables: Mapping[str, Any]) -> None:
    missing = [name for name in kind.variables if name not in variables]
    if missing:
        missing_text = "; ".join(f"{name} ({kind.variables[name]})" for name in missing)
        raise UnsendableEmail(f"The email ({kind.name}) can't be rendered. Missing variables: {missing_text}.")
