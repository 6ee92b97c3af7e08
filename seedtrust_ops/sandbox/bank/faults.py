"""Decides which request gets which fault: injected ones in order, or random ones by probability and a seed ("chaos").

The server applies the faults, and the request journal records them. Faults and chaos are kept in memory only: a bank
that was restarted has none.
"""

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from seedtrust_ops.sandbox.bank.contract import RefusalCode

FaultKind = Literal[
    "late_response_after_commit",
    "late_response_before_commit",
    "reset_after_commit",
    "reset_before_commit",
    "error_after_commit",
    "error_before_commit",
    "rate_limited",
    "unauthorized",
    "garbage",
    "slow_drip",
    "refuse",
    "swapped_response",
    "duplicate_response",
    "in_progress",
    "lagging_lookup",
]
"""`in_progress` answers 409 as if the first request with the key were still being processed; `lagging_lookup` answers a
lookup with an empty page, as a replica that lags behind does."""
Method = Literal["POST", "GET"]


class FaultOptions(BaseModel):
    """The parameters of a fault; each kind uses the ones it needs."""

    model_config = ConfigDict(extra="forbid")

    seconds: Annotated[float, Field(ge=0, le=3600)] = 1.0
    """late_response_*: the delay; slow_drip: the pause after each byte; rate_limited: Retry-After, rounded up."""
    status: Literal[500, 502, 503, 504] = 503
    """error_*: the HTTP status."""
    retry_after: str | None = None
    """rate_limited: the text of Retry-After instead of `seconds`; an empty text omits the header."""
    code: RefusalCode = "insufficient_funds"
    """refuse: the 422 code."""


class RequestMatch(BaseModel):
    """Which requests an injected fault applies to; a field that is None matches every request."""

    model_config = ConfigDict(extra="forbid")

    method: Method | None = None
    path: str | None = None
    idempotency_key: str | None = None
    reference: str | None = None
    amount_cents: int | None = None


class InjectedFault(FaultOptions):
    """One fault for the next `times` matching requests; null means until it is cleared."""

    kind: FaultKind
    times: Annotated[int, Field(ge=1)] | None = 1
    match: RequestMatch = RequestMatch()


class Chaos(FaultOptions):
    """Random faults by probability: the same seed and the same requests, in any order, get the same faults."""

    seed: int
    probabilities: dict[FaultKind, Annotated[float, Field(ge=0, le=1)]]
    methods: list[Method] = ["POST", "GET"]

    @model_validator(mode="after")
    def _probabilities_leave_room(self) -> "Chaos":
        if sum(self.probabilities.values()) > 1:
            raise ValueError("The probabilities add up to more than 1.")
        return self


@dataclass(frozen=True)
class IncomingRequest:
    """What is known of a request when its fault is chosen; a lookup may have many keys and references."""

    method: str
    path: str
    keys: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    amount_cents: int | None = None
    can_be_refused: bool = False
    """True for a POST whose key has no response yet; a key that has one always gets that response again."""


@dataclass
class _ActiveFault:
    number: int
    fault: InjectedFault
    applied: int = 0


@dataclass(frozen=True)
class Fault:
    """A fault that a request gets, and where it comes from ("fault 3", "chaos")."""

    kind: FaultKind
    options: FaultOptions
    source: str


class Faults:
    """The injected faults, the chaos settings, and the faults that were applied."""

    def __init__(self) -> None:
        self._last_number = 0
        self._active: list[_ActiveFault] = []
        self._chaos: Chaos | None = None
        self._seen: Counter[str] = Counter()
        self._applied: list[dict[str, object]] = []

    def add(self, fault: InjectedFault) -> int:
        """Add a fault after the existing ones; returns its number."""
        self._last_number += 1
        self._active.append(_ActiveFault(self._last_number, fault))
        return self._last_number

    def set_chaos(self, chaos: Chaos) -> None:
        """Replace the chaos settings and reset the request counts, so that a run can be repeated."""
        self._chaos = chaos
        self._seen.clear()

    def clear(self) -> None:
        """Remove all injected faults and the chaos, and clear the list of applied faults."""
        self._active.clear()
        self._chaos = None
        self._seen.clear()
        self._applied.clear()

    def overview(self) -> dict[str, object]:
        """Return the injected faults with their counts, the chaos settings, and every applied fault, oldest first."""
        injected = [
            {"number": active.number, "applied": active.applied, **active.fault.model_dump()} for active in self._active
        ]
        chaos = self._chaos.model_dump() if self._chaos else None
        return {"injected": injected, "chaos": chaos, "applied": self._applied}

    def choose(self, incoming: IncomingRequest) -> Fault | None:
        """Return this request's fault, if any, and count it as applied. Injected faults come before chaos."""
        fault = self._injected_fault(incoming) or self._chaos_fault(incoming)
        if fault is not None:
            self._applied.append({"kind": fault.kind, "source": fault.source, **asdict(incoming)})
        return fault

    def _injected_fault(self, incoming: IncomingRequest) -> Fault | None:
        for active in self._active:
            fault = active.fault
            if fault.times is not None and active.applied >= fault.times:
                continue
            if fault.kind == "refuse" and not incoming.can_be_refused:
                continue
            if _matches(fault.match, incoming):
                active.applied += 1
                return Fault(fault.kind, fault, f"fault {active.number}")
        return None

    def _chaos_fault(self, incoming: IncomingRequest) -> Fault | None:
        if self._chaos is None or incoming.method not in self._chaos.methods:
            return None
        # The draw depends only on the request itself and on how often it was made, never on time or arrival order.
        subject = "|".join((incoming.method, incoming.path, *sorted(incoming.keys), *sorted(incoming.references)))
        self._seen[subject] += 1
        draw_input = f"{self._chaos.seed}|{subject}|{self._seen[subject]}".encode()
        draw = int.from_bytes(hashlib.sha256(draw_input).digest()[:8]) / 2**64
        for kind in sorted(self._chaos.probabilities):
            draw -= self._chaos.probabilities[kind]
            if draw < 0:
                return None if kind == "refuse" and not incoming.can_be_refused else Fault(kind, self._chaos, "chaos")
        return None


def _matches(match: RequestMatch, incoming: IncomingRequest) -> bool:
    return (
        match.method in (None, incoming.method)
        and match.path in (None, incoming.path)
        and (match.idempotency_key is None or match.idempotency_key in incoming.keys)
        and (match.reference is None or match.reference in incoming.references)
        and match.amount_cents in (None, incoming.amount_cents)
    )
