"""Which request meets which fault: by order, one after the other, or by probability and a seed.

It only decides. The server carries the faults out, and the request journal keeps which request met which.
Orders and chaos live in memory: a bank that was killed comes back honest.
"""

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from seedtrust_ops.sandbox.bank.contract import RefusalCode

FaultKind = Literal[
    "answer_late_after_commit",
    "answer_late_before_commit",
    "reset_after_commit",
    "reset_before_commit",
    "error_after_commit",
    "error_before_commit",
    "rate_limited",
    "unauthorized",
    "garbage",
    "slow_drip",
    "refuse",
    "answer_of_another",
    "answered_twice",
]
Method = Literal["POST", "GET"]


class FaultOptions(BaseModel):
    """How a fault looks when it is met; each kind reads what it needs."""

    model_config = ConfigDict(extra="forbid")

    seconds: Annotated[float, Field(ge=0, le=3600)] = 1.0
    """answer_late_*: how late; slow_drip: pause after each byte; rate_limited: Retry-After, rounded up."""
    status: Literal[500, 502, 503, 504] = 503
    """error_*: the answer's status."""
    retry_after: str | None = None
    """rate_limited: the text of Retry-After where `seconds` is not it; an empty one leaves the header out."""
    code: RefusalCode = "insufficient_funds"
    """refuse: the answer's 422 code."""


class Match(BaseModel):
    """Which requests an order means; what is left out fits every request."""

    model_config = ConfigDict(extra="forbid")

    method: Method | None = None
    idempotency_key: str | None = None
    reference: str | None = None
    amount_cents: int | None = None


class FaultOrder(FaultOptions):
    """One fault for the next `times` requests that match; times null means until it is cleared."""

    kind: FaultKind
    times: Annotated[int, Field(ge=1)] | None = 1
    match: Match = Match()


class Chaos(FaultOptions):
    """Faults by probability: the same seed and the same requests, in any order, meet the same faults."""

    seed: int
    probabilities: dict[FaultKind, Annotated[float, Field(ge=0, le=1)]]
    methods: list[Method] = ["POST", "GET"]

    @model_validator(mode="after")
    def _probabilities_leave_room(self) -> "Chaos":
        if sum(self.probabilities.values()) > 1:
            raise ValueError("The probabilities add up to more than 1.")
        return self


@dataclass(frozen=True)
class Incoming:
    """What is known of a request when its fault is chosen; a look-up may carry many keys and references."""

    method: str
    path: str
    keys: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    amount_cents: int | None = None
    can_be_refused: bool = False
    """True for a POST whose key has no answer yet; a key that has one keeps it, whatever was ordered."""


@dataclass
class _Standing:
    number: int
    order: FaultOrder
    applied: int = 0


@dataclass(frozen=True)
class Fault:
    """A fault that a request meets, and where it comes from ("order 3", "chaos")."""

    kind: FaultKind
    options: FaultOptions
    source: str


class Faults:
    """The orders that stand, the chaos that reigns, and what has been met."""

    def __init__(self) -> None:
        self._orders_taken = 0
        self._standing: list[_Standing] = []
        self._chaos: Chaos | None = None
        self._seen: Counter[str] = Counter()
        self._applied: list[dict[str, object]] = []

    def order(self, order: FaultOrder) -> int:
        """Add an order behind those that stand; returns its number."""
        self._orders_taken += 1
        self._standing.append(_Standing(self._orders_taken, order))
        return self._orders_taken

    def reign(self, chaos: Chaos) -> None:
        """Replace the chaos; requests are counted anew, so that a run can be repeated."""
        self._chaos = chaos
        self._seen.clear()

    def clear(self) -> None:
        """Forget all orders, the chaos and what was met."""
        self._standing.clear()
        self._chaos = None
        self._seen.clear()
        self._applied.clear()

    def overview(self) -> dict[str, object]:
        """Orders with how often each was met, the chaos, and every fault met, oldest first."""
        ordered = [
            {"number": standing.number, "applied": standing.applied, **standing.order.model_dump()}
            for standing in self._standing
        ]
        chaos = self._chaos.model_dump() if self._chaos else None
        return {"ordered": ordered, "chaos": chaos, "applied": self._applied}

    def choose(self, incoming: Incoming) -> Fault | None:
        """The fault that this request meets, if any; it counts as met from now on. Orders go before chaos."""
        fault = self._ordered(incoming) or self._drawn(incoming)
        if fault is not None:
            self._applied.append({"kind": fault.kind, "source": fault.source, **asdict(incoming)})
        return fault

    def _ordered(self, incoming: Incoming) -> Fault | None:
        for standing in self._standing:
            order = standing.order
            if order.times is not None and standing.applied >= order.times:
                continue
            if order.kind == "refuse" and not incoming.can_be_refused:
                continue
            if _fits(order.match, incoming):
                standing.applied += 1
                return Fault(order.kind, order, f"order {standing.number}")
        return None

    def _drawn(self, incoming: Incoming) -> Fault | None:
        if self._chaos is None or incoming.method not in self._chaos.methods:
            return None
        # Neither arrival time nor order goes into the draw: only who asks, for what, and for which time.
        subject = "|".join((incoming.method, incoming.path, *sorted(incoming.keys), *sorted(incoming.references)))
        self._seen[subject] += 1
        ticket = f"{self._chaos.seed}|{subject}|{self._seen[subject]}".encode()
        draw = int.from_bytes(hashlib.sha256(ticket).digest()[:8]) / 2**64
        for kind in sorted(self._chaos.probabilities):
            draw -= self._chaos.probabilities[kind]
            if draw < 0:
                return None if kind == "refuse" and not incoming.can_be_refused else Fault(kind, self._chaos, "chaos")
        return None


def _fits(match: Match, incoming: Incoming) -> bool:
    return (
        match.method in (None, incoming.method)
        and (match.idempotency_key is None or match.idempotency_key in incoming.keys)
        and (match.reference is None or match.reference in incoming.references)
        and match.amount_cents in (None, incoming.amount_cents)
    )
