"""Validates the parameters of a report request, which are user input, and names what is wrong in one sentence.

Who may request which report is decided in `authority`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from seedtrust_ops.errors import SeedTrustError


class InvalidReportRequest(SeedTrustError):
    """A report request that cannot be fulfilled as it stands; the message is for its requester."""


PARAMETERS: Mapping[str, frozenset[str]] = {
    "case_ledger": frozenset({"case_id"}),
    "disbursements": frozenset({"from", "to", "status"}),
    "account_balances": frozenset(),
    "huntington_transfers": frozenset({"from", "to"}),
}
"""The parameters that each kind of report takes."""


@dataclass(frozen=True)
class Period:
    """Calendar days in the office's time zone, both inclusive; None means open-ended."""

    first: date | None
    last: date | None

    def __str__(self) -> str:
        first, last = (f"{day:%B} {day.day}, {day.year}" if day else None for day in (self.first, self.last))
        if first and last:
            return f"{first} to {last}"
        return f"since {first}" if first else f"until {last}" if last else "all time"


def read_parameters(kind: str, params: object) -> Mapping[str, Any]:
    """Return `params` by name; their values are not validated yet.

    Raises:
        InvalidReportRequest: there is no such kind of report, or it does not take one of the parameters. A filter that
            was ignored would show more than what was asked for.
    """
    known = PARAMETERS.get(kind)
    if known is None:
        raise InvalidReportRequest(f"Unknown report {kind[:60]!r}. Choose one of {', '.join(PARAMETERS)}.")
    if not isinstance(params, dict):
        raise InvalidReportRequest("The report's parameters cannot be read. Request the report again.")
    unknown = sorted(params.keys() - known)
    if unknown:
        expected = f"It takes {', '.join(sorted(known))}." if known else "It takes no parameters."
        raise InvalidReportRequest(f"The report '{kind}' has no parameter {unknown[0][:60]!r}. {expected}")
    return params


def read_case_id(params: Mapping[str, Any]) -> int:
    """Return `case_id`; raises InvalidReportRequest if it is not a case id."""
    value = params.get("case_id")
    text = (value if isinstance(value, str) else _shown(value)).strip()
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) < 20 and 0 < int(text) < 2**63):
        found = "the request has none" if value in (None, "") else f"{text[:60]!r} is none"
        raise InvalidReportRequest(
            f"A case ledger needs a case id (`case_id`), and {found}. Choose the case and request the report again."
        )
    return int(text)


def read_period(params: Mapping[str, Any], zone: str) -> Period:
    """Return `from` and `to`, both optional: dates, or timestamps, whose days are those of the office.

    Args:
        params: the request's parameters.
        zone: the office's time zone.

    Raises:
        InvalidReportRequest: one is neither a date nor a timestamp, or they are reversed.
    """
    first, last = (_day(params, name, zone) for name in ("from", "to"))
    if first and last and first > last:
        raise InvalidReportRequest(
            f"The report's start date ({first}) is after its end date ({last}). Swap the dates and try again."
        )
    return Period(first, last)


def read_choice(params: Mapping[str, Any], name: str, choices: tuple[str, ...]) -> str | None:
    """Return one of `choices`, or None for all; raises InvalidReportRequest for any other value."""
    value = params.get(name)
    if value in (None, "", "all"):
        return None
    if value not in choices:
        raise InvalidReportRequest(
            f"Unknown {name} {_shown(value)!r}. Choose one of {', '.join(choices)}, or leave it empty for all."
        )
    return str(value)


def _day(params: Mapping[str, Any], name: str, zone: str) -> date | None:
    value = params.get(name)
    if value in (None, ""):
        return None
    try:
        moment = datetime.fromisoformat(value if isinstance(value, str) else "")
        # Midnight is how programs write a day, in whatever time zone: 2026-03-31T00:00:00Z is March 31 in New York too.
        if moment.tzinfo is None or moment.time() == time.min:
            return moment.date()
        return moment.astimezone(ZoneInfo(zone)).date()
    except (ValueError, OverflowError):
        raise InvalidReportRequest(
            f"The report date `{name}` is {_shown(value)!r}, which is not a date. Use the format 2026-03-31 and try "
            "again."
        ) from None


def _shown(value: object) -> str:
    """Return what a message quotes of a value that a user sent."""
    try:
        return str(value)[:60]
    except ValueError:
        # Python does not write out numbers of more than 4,300 digits.
        return "a number of too many digits"
