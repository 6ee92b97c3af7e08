"""Writes a letter's subject, plain text and HTML from its kind's templates and its variables.

Money is shown in dollars, and days and moments in words on the office's wall clock. A variable that is missing or
makes no sense is told as a sentence, and so is whatever else a template trips over.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, select_autoescape

from seedtrust_ops.domain.notifications.notification_kinds import KINDS, Kind
from seedtrust_ops.formatting import single_line, strip_control_chars

TEMPLATES = Path(__file__).parent / "templates"
LONGEST_SUBJECT = 200
"""Mail servers refuse lines of more than 998 characters (RFC 5322, 2.1.1)."""

# Nacha's own words for the returns that a payee's account can cause; the others are told by their code.
RETURN_REASONS = {
    "R01": "the payee's bank account does not hold enough",
    "R02": "the payee's bank account is closed",
    "R03": "there is no such account, or it is not the payee's",
    "R04": "the account number is not valid",
    "R05": "the account is a consumer's and did not authorize this",
    "R06": "the sending bank asked for it back",
    "R07": "the payee has revoked the authorization",
    "R08": "the payee has stopped the payment",
    "R09": "the money in the account is not yet available",
    "R10": "the payee says that it was not authorized",
    "R16": "the payee's account is frozen",
    "R20": "the account takes no transfers of this kind",
}


class UnusableLetter(Exception):
    """This letter can't be written out; the text says why, for people."""


@dataclass(frozen=True)
class WrittenLetter:
    """A letter as its recipient will read it."""

    subject: str
    text: str
    html: str


class EmailRenderer:
    """The templates, read once and kept; safe to use for any number of letters."""

    def __init__(self, timezone: ZoneInfo) -> None:
        """Take the time zone in which days and moments are told."""
        self._timezone = timezone
        self._environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            undefined=StrictUndefined,
            finalize=_shown,
            autoescape=select_autoescape(["html.jinja"], default_for_string=False),
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self._environment.filters |= {
            "dollars": dollars,
            "day": in_words,
            "moment": self._moment,
            "words": lambda name: str(name).replace("_", " "),
            "return_reason": lambda code: RETURN_REASONS.get(code, "the bank gives no more than its code"),
        }
        self._subjects = {kind.name: self._environment.from_string(kind.subject) for kind in KINDS.values()}

    def write(
        self,
        kind: str,
        variables: Mapping[str, Any],
        *,
        recipient_name: str = "",
        attachment_name: str | None = None,
        subject: str = "",
    ) -> WrittenLetter:
        """Return the letter of this kind; an empty `subject` stands for the kind's own.

        Raises:
            UnusableLetter: when there is no such kind, or a variable is missing or makes no sense.
        """
        known = KINDS.get(kind)
        if known is None:
            raise UnusableLetter(f"There is no kind of letter called {kind!r}; there are {', '.join(KINDS)}.")
        _check(known, variables)
        given = {**variables, "recipient_name": single_line(recipient_name)}
        if attachment_name is not None:
            given["attachment_name"] = attachment_name
        try:
            return WrittenLetter(
                subject=single_line(subject or self._subjects[kind].render(given), LONGEST_SUBJECT),
                text=self._environment.get_template(f"{kind}.txt.jinja").render(given).strip() + "\n",
                html=self._environment.get_template(f"{kind}.html.jinja").render(given),
            )
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise UnusableLetter(f"The letter ({kind}) can't be written: {single_line(str(error))}.") from error

    def _moment(self, text: str) -> str:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError(f"the moment {text} has no offset from UTC")
        local = moment.astimezone(self._timezone)
        return f"{local:%B} {local.day}, {local.year} at {local:%I:%M %p %Z}".replace(" at 0", " at ")


def dollars(cents: int) -> str:
    """Return cents as people write money: -123456 is -$1,234.56. Raises TypeError for what is no whole number."""
    if not isinstance(cents, int) or isinstance(cents, bool):
        raise TypeError(f"{cents} is no whole number of cents")
    return f"{'-' if cents < 0 else ''}${abs(cents) // 100:,}.{abs(cents) % 100:02}"


def in_words(day: str) -> str:
    """Return YYYY-MM-DD as Tuesday, March 3, 2026. Raises ValueError for what is no day."""
    read = date.fromisoformat(day)
    return f"{read:%A}, {read:%B} {read.day}, {read.year}"


def _shown(value: Any) -> Any:
    """Return what goes into a letter for `value`: no text of somebody's adds a line to what we say."""
    # A macro's markup is a class of its own, and was written here.
    return strip_control_chars(value) if type(value) is str else value


def _check(kind: Kind, variables: Mapping[str, Any]) -> None:
    missing = [name for name in kind.variables if name not in variables]
    if missing:
        told = "; ".join(f"{name} ({kind.variables[name]})" for name in missing)
        raise UnusableLetter(f"The letter ({kind.name}) can't be written, its variables lack: {told}.")
