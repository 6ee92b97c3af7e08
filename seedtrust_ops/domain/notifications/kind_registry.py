"""What a kind of email is, and the registry of all kinds that this process knows: declaring one registers it.

A kind may be declared beside the rule that enqueues its emails. Rendering is in `renderer`, sending in
`domain/outbox`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import IntEnum
from typing import Any, Literal

from seedtrust_ops.errors import SeedTrustError

MAX_TABLE_ROWS = 100
"""An email lists at most this many rows, and says how many more there are."""
MAX_NAME_CHARS = 100
"""A name or another short text that people typed is shown up to this length; it may stand in one of our sentences."""
MAX_SENTENCE_CHARS = 300
"""A cell with sentences is shown up to this length."""
_ROWS_LEFT_OUT_IN_PREVIEW = 4

ColumnFormat = Literal["text", "sentence", "day", "date_time", "dollars", "count"]
_VALUES: Mapping[ColumnFormat, str] = {
    "text": "text",
    "sentence": "sentences",
    "day": "a day",
    "date_time": "a time",
    "dollars": "cents",
    "count": "a whole number",
}


USEFUL_FOR = timedelta(days=14)
"""How long emails are of use, unless their kind says something else."""


class UnknownPreview(SeedTrustError):
    """No example has that name."""


class Urgency(IntEnum):
    """Emails of a lower value are sent first, so that no alert waits behind a hundred thousand approvals."""

    ALERT = 0
    """About the system itself; retried sooner and for longer than emails to customers."""
    PROMPT = 1
    """Somebody waits for it, or has to act at once."""
    ROUTINE = 2
    BULK = 3


@dataclass(frozen=True)
class Example:
    """Sample variables of one kind; names and figures are invented."""

    kind: str
    variables: Mapping[str, Any]
    attachment_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class NotificationKind:
    """A kind of email with templates of its own, `templates/<name>.html.jinja` and `templates/<name>.txt.jinja`.

    `variables` and `optional` say what each variable of the templates means. `recipient_name` and `attachment_name`
    are added on delivery: the user's full name (empty if the address is not a user's) and the name of the attached
    file, if there is one. Money is integer cents, a time is ISO 8601 with its offset, a day is YYYY-MM-DD: what
    PostgreSQL's `jsonb_build_object` makes of bigint, timestamptz and date.

    `typed` names the variables that people typed, with the most characters to show of each. They are shown on one line,
    and web addresses in them are no links. A template also says whose words a whole text is.

    `useful_for` is how long after it was queued an email is still of use; later it is neither sent nor revived, and an
    alert says so. None means always. `must_reach` is whether an alert also says that its recipient is not active any
    more, because somebody has to act on it.

    `example` has sample variables for previews and tests, with `attachment_name` if a file is attached.
    `other_examples` has more of them by the name of their preview, each complete.
    """

    name: str
    recipients: str
    subject: str
    variables: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)
    typed: Mapping[str, int] = field(default_factory=dict)
    example: Mapping[str, Any]
    other_examples: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    urgency: Urgency = Urgency.ROUTINE
    useful_for: timedelta | None = USEFUL_FOR
    must_reach: bool = False

    def __post_init__(self) -> None:
        """Register the kind. Raises ValueError if its name or that of an example is taken."""
        _register(self)

    @property
    def examples(self) -> dict[str, Example]:
        """The examples by the name of their preview."""
        named = {self.name: self.example, **self.other_examples}
        return {
            name: Example(
                self.name,
                {key: value for key, value in variables.items() if key != "attachment_name"},
                variables.get("attachment_name"),
            )
            for name, variables in named.items()
        }


@dataclass(frozen=True)
class Column:
    """A column of the table in an email: the name of its value in each row, its heading and its format.

    Values are what JSON has for them: text (shown like a name that people typed), a sentence (longer; best as the last
    column), a day (YYYY-MM-DD), a date_time (ISO 8601 with its offset), dollars (integer cents) or a count.
    None is shown as a dash. Dollars and counts are aligned to the right.
    """

    name: str
    heading: str
    format: ColumnFormat = "text"

    @property
    def is_number(self) -> bool:
        """Whether the column is aligned to the right."""
        return self.format in ("dollars", "count")


@dataclass(frozen=True, kw_only=True)
class TableEmailKind:
    """A kind of email that is a sentence and a table; it needs no templates of its own.

    `subject`, `introduction` and `why` are templates. They may use `as_of` (a day), `rows`, `rows_left_out` and
    `count`, the number of rows with those left out, such as `{{ count | pluralize("case") }}`. `why` is the sentence at
    the end that says why people receive the email. `example` is a list of sample rows. Each row is a mapping with a
    value for every column. `useful_for` and `must_reach` are as in `NotificationKind`.
    """

    name: str
    recipients: str
    subject: str
    introduction: str
    columns: tuple[Column, ...]
    example: Sequence[Mapping[str, Any]]
    why: str = ""
    urgency: Urgency = Urgency.ROUTINE
    useful_for: timedelta | None = USEFUL_FOR
    must_reach: bool = False

    def __post_init__(self) -> None:
        """Register the kind. Raises ValueError if its name or that of an example is taken."""
        _register(self)

    @property
    def variables(self) -> Mapping[str, str]:
        """What each variable means."""
        values = ", ".join(f"{column.name} ({_VALUES[column.format]})" for column in self.columns)
        return {"as_of": "the day of the figures, or null", "rows": f"a list of objects with {values}"}

    @property
    def optional(self) -> Mapping[str, str]:
        """What each optional variable means."""
        return {"rows_left_out": "how many more rows there are than the email lists"}

    @property
    def examples(self) -> dict[str, Example]:
        """The examples by the name of their preview: the sample rows, one of them alone, and a list that was cut."""
        variables = {"as_of": "2026-03-03", "rows": list(self.example)}
        return {
            self.name: Example(self.name, variables),
            f"{self.name}-one": Example(self.name, {**variables, "rows": list(self.example[:1])}),
            f"{self.name}-cut": Example(self.name, {**variables, "rows_left_out": _ROWS_LEFT_OUT_IN_PREVIEW}),
        }

    def variables_for(self, as_of: date | None, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Return an email's variables: the first MAX_TABLE_ROWS of `rows`, and how many were left out.

        `as_of` is the day of the figures; None if the email is about something that has happened. The values may be of
        Python's types (date, aware datetime, int, str, None); those of other names are left out.

        Raises:
            ValueError: if a row has no value for a column.
        """
        listed = [self._json_row(row) for row in rows]
        return {
            "as_of": None if as_of is None else as_of.isoformat(),
            "rows": listed[:MAX_TABLE_ROWS],
            "rows_left_out": max(len(listed) - MAX_TABLE_ROWS, 0),
        }

    def _json_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        missing = [column.name for column in self.columns if column.name not in row]
        if missing:
            raise ValueError(f"A row of the email {self.name} has no value for: {', '.join(missing)}.")
        values = {column.name: row[column.name] for column in self.columns}
        return {
            name: value.isoformat() if isinstance(value, date | datetime) else value for name, value in values.items()
        }


EmailKind = NotificationKind | TableEmailKind

KINDS: dict[str, EmailKind] = {}
"""The kinds that this process knows, by name: those of every module that it has imported."""


def kind_names_by_urgency() -> list[str]:
    """Return the names of all known kinds in the order in which emails are sent."""
    return sorted(KINDS, key=lambda name: KINDS[name].urgency)


def examples() -> dict[str, Example]:
    """Return the examples of all known kinds by the name of their preview."""
    return {name: example for kind in KINDS.values() for name, example in kind.examples.items()}


def find_example(name: str) -> Example:
    """Return the example with this name; raises `UnknownPreview`, which lists the valid names."""
    known = examples()
    if name not in known:
        raise UnknownPreview(f"There is no email preview {name!r}. Choose one of: {', '.join(known)}.")
    return known[name]


def _register(kind: EmailKind) -> None:
    if kind.name in KINDS:
        raise ValueError(f"Two kinds of email are named {kind.name!r}. Give one of them another name.")
    taken = examples().keys() & kind.examples.keys()
    if taken:
        raise ValueError(f"The email {kind.name} has an example whose name is taken: {', '.join(sorted(taken))}.")
    KINDS[kind.name] = kind
