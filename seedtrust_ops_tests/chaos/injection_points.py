"""The moments at which a worker can be struck: just before and just after each of its I/O steps.

A step is known by what it is and how often that came before ("commit of claim_batch", the first), so that it is
found again in a run in which other steps came in another order.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import Any

RENEWALS = ("commit of _keep", "commit of _keep: watch", "UPDATE in renew_lease")
"""Steps that come once a second for as long as a batch is processed: the first of them stands for all."""


@dataclass(frozen=True)
class Moment:
    """One side of one step; `number` is the step's place in the run that was recorded, for people."""

    label: str
    occurrence: int
    is_after: bool
    number: int = 0

    def __str__(self) -> str:
        """As a test's failure names it."""
        side = "after" if self.is_after else "before"
        again = f" ({self.occurrence})" if self.occurrence > 1 else ""
        place = f"step {self.number}: " if self.number else ""
        return f"{side} {place}{self.label}{again}"

    def is_same(self, other: "Moment") -> bool:
        """Whether both are the same side of the same step, whatever its place was."""
        return (self.label, self.occurrence, self.is_after) == (other.label, other.occurrence, other.is_after)


class Steps:
    """Counts the steps of this process as they come, from whichever thread, and strikes at one moment."""

    def __init__(
        self, strike_at: Moment | None = None, strike: Callable[[Any], Any] | None = None, *, goes_on: bool = False
    ) -> None:
        """Take the moment and what is then to be done; with neither, steps are recorded alone.

        A strike that `goes_on` meets every step from that moment on, as a disk does that is full.
        """
        self._strike_at = strike_at
        self._strike = strike
        self._goes_on = goes_on
        self._begun: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._lock = RLock()
        self.recorded: list[str] = []
        self.has_struck = False
        self.leaving: set[int] = set()
        """Transactions that the product has looked at for the last time, and of which no byte has left."""
        self.were_leaving: frozenset[int] = frozenset()
        """Those that were so when the strike fell."""

    def begin(self, label: str, means: Any = None) -> Any:
        """Say that a step is about to be taken, and by what means; return what the strike returned, if any."""
        with self._lock:
            self._begun[label] += 1
            self.recorded.append(label)
            return self._look(Moment(label, self._begun[label], is_after=False), means)

    def end(self, label: str, means: Any = None) -> None:
        """Say that a step has been taken."""
        with self._lock:
            self._ended[label] += 1
            self._look(Moment(label, self._ended[label], is_after=True), means)

    def _look(self, moment: Moment, means: Any) -> Any:
        if self._strike is None or self._strike_at is None:
            return None
        if self._strike_at.is_same(moment) or (self.has_struck and self._goes_on):
            self.has_struck = True
            self.were_leaving = frozenset(self.leaving)
            return self._strike(means)
        return None


def moments_of(
    recorded: Sequence[str], *, once: Sequence[str] = (), sides: Sequence[bool] = (False, True)
) -> list[Moment]:
    """Return every moment of a run that was recorded.

    Args:
        recorded: its steps, by label, in their order.
        once: labels of steps that come as often as the run is long, of which the first stands for all.
        sides: before (false), after (true), or both.
    """
    seen: Counter[str] = Counter()
    moments = []
    for number, label in enumerate(recorded, 1):
        seen[label] += 1
        if seen[label] == 1 or label not in once:
            moments += [Moment(label, seen[label], is_after, number) for is_after in sides]
    return moments
