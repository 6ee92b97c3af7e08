"""What a health rule is, and what it finds: one subject in trouble, how bad that is, and what to do about it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import Finding

SHOWN = 20
"""So many subjects of one rule get an alert of their own; what is beyond is one more finding that counts the rest."""


@dataclass(frozen=True)
class Rule:
    """A question that is asked again and again, no sooner than `every_seconds` after the last time.

    `find` returns everything that is wrong now: what it does not return is over.
    """

    name: str
    find: Callable[[Session], Sequence[Finding]]
    every_seconds: float = 0


def in_time(seconds: float) -> str:
    """Return a duration as people say it: 45 seconds, 12 minutes, 5 hours, 3 days."""
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}s"
    return f"{int(seconds)} second{'' if int(seconds) == 1 else 's'}"


def the_rest(like: Finding, subjects: str, number: int) -> Finding:
    """Return the finding about so many more `subjects` in the same trouble as the one of `like`."""
    return Finding(
        like.rule,
        f"{subjects}: others",
        like.severity,
        f"{number} more are as {like.subject} is, beside the {SHOWN} that have alerts of their own.",
    )
