"""Injection points: a worker can meet its fault just before or just after each of its I/O steps.

A step is identified by its label and its occurrence ("commit of approve_due", the first), so that it is found again in
a run whose steps come in another order.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import Any

LEASE_RENEWAL_STEPS = (
    "commit of _maintain_lease",
    "commit of require_sending_allowed",
    "UPDATE in renew_lease",
)
"""Steps that recur once a second while a batch is processed: the first of each stands for all."""


@dataclass(frozen=True)
class InjectionPoint:
    """One side of one step. `number` is the step's position in the recorded run; it is only shown, never compared."""

    label: str
    occurrence: int
    is_after: bool
    number: int = 0

    def __str__(self) -> str:
        """The text that a test failure shows."""
        side = "after" if self.is_after else "before"
        repetition = f" ({self.occurrence})" if self.occurrence > 1 else ""
        position = f"step {self.number}: " if self.number else ""
        return f"{side} {position}{self.label}{repetition}"

    def matches(self, other: "InjectionPoint") -> bool:
        """Whether both are the same side of the same step, whatever its position was."""
        return (self.label, self.occurrence, self.is_after) == (other.label, other.occurrence, other.is_after)


class FaultInjector:
    """Counts the steps of this process, from any thread, and injects a fault at one injection point."""

    def __init__(
        self,
        injection_point: InjectionPoint | None = None,
        inject: Callable[[Any], Any] | None = None,
        *,
        is_persistent: bool = False,
    ) -> None:
        """Take the injection point and the function to call there; without them, steps are only recorded.

        If `is_persistent`, the function is called at every step from the injection point on, as for a full disk.
        """
        self._injection_point = injection_point
        self._inject = inject
        self._is_persistent = is_persistent
        self._begun: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._lock = RLock()
        self.recorded_steps: list[str] = []
        self.fault_injected = False
        self.leaving: set[int] = set()
        """Transaction ids that passed the product's last check before sending, and of which no byte has left."""
        self.leaving_when_injected: frozenset[int] = frozenset()
        """The value of `leaving` when the fault was injected."""

    def begin_step(self, label: str, resource: Any = None) -> Any:
        """Record that a step is about to run on `resource`; return what the fault returned, if it was injected."""
        with self._lock:
            self._begun[label] += 1
            self.recorded_steps.append(label)
            return self._inject_at(InjectionPoint(label, self._begun[label], is_after=False), resource)

    def end_step(self, label: str, resource: Any = None) -> None:
        """Record that a step has run."""
        with self._lock:
            self._ended[label] += 1
            self._inject_at(InjectionPoint(label, self._ended[label], is_after=True), resource)

    def _inject_at(self, point: InjectionPoint, resource: Any) -> Any:
        if self._inject is None or self._injection_point is None:
            return None
        if self._injection_point.matches(point) or (self.fault_injected and self._is_persistent):
            self.fault_injected = True
            self.leaving_when_injected = frozenset(self.leaving)
            return self._inject(resource)
        return None


def list_injection_points(
    recorded_steps: Sequence[str], *, first_only: Sequence[str] = (), sides: Sequence[bool] = (False, True)
) -> list[InjectionPoint]:
    """Return every injection point of a recorded run.

    Args:
        recorded_steps: the labels of its steps, in order.
        first_only: labels of steps that recur as long as the run lasts; only their first occurrence is used.
        sides: before (false), after (true), or both.
    """
    seen: Counter[str] = Counter()
    points = []
    for number, label in enumerate(recorded_steps, 1):
        seen[label] += 1
        if seen[label] == 1 or label not in first_only:
            points += [InjectionPoint(label, seen[label], is_after, number) for is_after in sides]
    return points
