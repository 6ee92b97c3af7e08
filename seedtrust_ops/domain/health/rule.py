"""What a health rule is, and helpers for its findings. The alerts made of findings are in `domain/alerts`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import Finding

MAX_SEPARATE_FINDINGS = 20
"""One rule opens at most this many alerts for single subjects; one more finding counts the others."""


@dataclass(frozen=True)
class HealthRule:
    """A check that is evaluated repeatedly, at most once every `min_interval_seconds`.

    `find` returns everything that is wrong now; what it no longer returns is resolved.
    """

    name: str
    find: Callable[[Session], Sequence[Finding]]
    min_interval_seconds: float = 0


def remaining_finding(example: Finding, subjects: str, number: int) -> Finding:
    """Return the finding that counts the `number` subjects beyond those with alerts of their own."""
    return Finding(
        example.rule,
        f"{subjects}: others",
        example.severity,
        f"{number} more {'has' if number == 1 else 'have'} the same problem as {example.subject}, in addition to the "
        f"{MAX_SEPARATE_FINDINGS} that have their own alerts.",
    )
