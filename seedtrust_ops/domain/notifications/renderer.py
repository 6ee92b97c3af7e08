"""Renders an email's subject, plain text and HTML from the templates of its kind and its variables.

Money is shown in dollars, days and times are written out in the office's time zone. Every error, such as a missing or
invalid variable, is raised as an `UnsendableEmail` with a message for people.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, select_autoescape

from seedtrust_ops.domain.notifications.notification_kinds import KINDS, NotificationKind
from seedtrust_ops.formatting import format_dollars, single_line, strip_control_chars

TEMPLATES = Path(__file__).parent / "templates"
MAX_SUBJECT_CHARS = 200
"""Mail servers reject lines of more than 998 characters (RFC 5322, 2.1.1)."""

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
        }
        self._subjects = {kind.name: self._environment.from_string(kind.subject) for kind in KINDS.values()}

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
        values = {**variables, "recipient_name": single_line(recipient_name)}
        if attachment_name is not None:
            values["attachment_name"] = attachment_name
        try:
            return RenderedEmail(
                subject=single_line(subject or self._subjects[kind].render(values), MAX_SUBJECT_CHARS),
                text=self._environment.get_template(f"{kind}.txt.jinja").render(values).strip() + "\n",
                html=self._environment.get_template(f"{kind}.html.jinja").render(values),
            )
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise UnsendableEmail(f"The email ({kind}) can't be rendered: {single_line(str(error))}.") from error

    def _format_time(self, text: str) -> str:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            raise ValueError(f"the time {text} has no offset from UTC")
        local = time.astimezone(self._timezone)
        return f"{local:%B} {local.day}, {local.year} at {local:%I:%M %p %Z}".replace(" at 0", " at ")


def format_cents(cents: int) -> str:
    """Return cents as US dollars: -123456 is -$1,234.56. Raises TypeError for anything but an integer."""
    if not isinstance(cents, int) or isinstance(cents, bool):
        raise TypeError(f"{cents} is not a whole number of cents")
    return format_dollars(cents)


def format_day(day: str) -> str:
    """Return YYYY-MM-DD as Tuesday, March 3, 2026. Raises ValueError if it is not a date."""
    parsed = date.fromisoformat(day)
    return f"{parsed:%A}, {parsed:%B} {parsed.day}, {parsed.year}"


def _strip_text(value: Any) -> Any:
    """Return `value` without control characters, so that no user's text can add a line to an email."""
    # A macro's output is a subclass of str that our own templates wrote.
    return strip_control_chars(value) if type(value) is str else value


def _require_variables(kind: NotificationKind, variables: Mapping[str, Any]) -> None:
    missing = [name for name in kind.variables if name not in variables]
    if missing:
        missing_text = "; ".join(f"{name} ({kind.variables[name]})" for name in missing)
        raise UnsendableEmail(f"The email ({kind.name}) can't be rendered. Missing variables: {missing_text}.")
