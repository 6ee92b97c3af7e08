"""Formats money, durations, dates and counts, and makes text that users typed safe for a terminal, a log or an email.

Escaping for a certain format, such as HTML or a spreadsheet cell, is done where that format is written.
"""

import re
import unicodedata
from datetime import date

MAX_TEXT_CHARS = 2_000
"""What people typed is loaded, shown and sent up to this length, if nothing else is said (docs/security.md)."""
MAX_ID = 2**63 - 1
"""The largest number that a row can have (PostgreSQL's bigint); people can type a larger one."""

# A dot before something that may be a domain, and what follows a scheme: what mail programs look for.
_LINK_MARK = re.compile(r"(?<=\w)\.(?=[^\W\d_]{2})|:(?=//)")


def format_dollars(cents: int) -> str:
    """Return cents formatted as US dollars: -123456 is -$1,234.56."""
    return f"{'-' if cents < 0 else ''}${abs(cents) // 100:,}.{abs(cents) % 100:02}"


_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"))


def format_duration(seconds: float) -> str:
    """Return a duration for sentences, in the largest unit that gives at least 2: 45 seconds, 12 minutes, 3 days."""
    for length, unit in _UNITS:
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}s"
    return f"{int(seconds)} second{'' if int(seconds) == 1 else 's'}"


def format_short_duration(seconds: float) -> str:
    """Return a duration for tables, in the same units: 45s, 12m, 3d."""
    for length, unit in _UNITS:
        if seconds >= 2 * length:
            return f"{int(seconds // length)}{unit[0]}"
    return f"{int(seconds)}s"


def format_short_date(day: date) -> str:
    """Return a date of these weeks, for tables: Fri, Dec 4."""
    return f"{day:%a, %b} {day.day}"


def pluralize(count: int, singular: str, plural: str | None = None) -> str:
    """Return the count with its noun: "1 batch" or "2 batches"; the default plural adds an s."""
    return f"{count:,} {singular if count == 1 else plural or f'{singular}s'}"


def strip_control_chars(text: str) -> str:
    """Return the text with a space in place of each control character.

    These are line breaks, terminal escape sequences and the marks that change the text direction.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else " " for character in text)


def shorten(text: str, max_length: int) -> str:
    """Return the text, cut with an ellipsis if it is longer than `max_length`."""
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"


def single_line(text: str, max_length: int | None = None) -> str:
    """Return the text on one line, without control characters, cut with an ellipsis if longer than `max_length`."""
    line = " ".join(strip_control_chars(text).split())
    return line if max_length is None else shorten(line, max_length)


def describe_character(character: str) -> str:
    """Return the character's code and Unicode name, to name one that people can't see: U+00A0 NO-BREAK SPACE."""
    name = unicodedata.name(character, "a character without a name")
    return f"U+{ord(character):04X} {name}"


def disarm_links(text: str) -> str:
    """Return the text with its web addresses written so that no mail program makes links of them.

    https://pay.example/now becomes https[:]//pay[.]example/now, which people can still read.
    """
    return _LINK_MARK.sub(lambda mark: f"[{mark[0]}]", text)
