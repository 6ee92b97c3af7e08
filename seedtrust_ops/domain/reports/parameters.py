"""Reads the parameters of a report request, which anybody may have written, and says in a sentence what is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from seedtrust_ops.errors import SeedTrustError


class UnusableRequest(SeedTrustError):
    """A request that can't be met as it is; the text is for its requester."""


@dataclass(frozen=True)
class Period:
    """Days of the office's calendar, both included; None where it has no end there."""

    first: date | None
    last: date | None

    def __str__(self) -> str:
        first, last = (f"{day:%B} {day.day}, {day.year}" if day else None for day in (self.first, self.last))
        if first and last:
            return f"{first} to {last}"
        return f"since {first}" if first else f"until {last}" if last else "all time"


def read_case_id(params: Mapping[str, Any]) -> int:
    """Return `case_id`; UnusableRequest where it names no case."""
    value = params.get("case_id")
    text = str(value).strip()
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or not 0 < int(text[:20]) < 2**63:
        raise UnusableRequest(
            "A case ledger needs the number of a case (`case_id`), and the request names none. Choose the case and ask "
            "for the report again."
        )
    return int(text)


def read_period(params: Mapping[str, Any]) -> Period:
    """Return the days `from` and `to`, each optional; UnusableRequest where one is no day or they are reversed."""
    first, last = (_day(params, name) for name in ("from", "to"))
    if first and last and first > last:
        raise UnusableRequest(
            f"The report would start on {first} and end before that, on {last}. Exchange the dates and ask again."
        )
    return Period(first, last)


def read_choice(params: Mapping[str, Any], name: str, choices: tuple[str, ...]) -> str | None:
    """Return one of `choices`, None where all are wanted; UnusableRequest where it is another."""
    value = params.get(name)
    if value in (None, "", "all"):
        return None
    if value not in choices:
        raise UnusableRequest(
            f"No {name} is called {str(value)[:60]!r}: choose one of {', '.join(choices)}, or none for all."
        )
    return str(value)


def _day(params: Mapping[str, Any], name: str) -> date | None:
    value = params.get(name)
    if value in (None, ""):
        return None
    try:
        return date.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        raise UnusableRequest(
            f"The date `{name}` of the report is {str(value)[:60]!r}, which is no day. Write it like 2026-03-31 and "
            "ask again."
        ) from None
