"""The mail server's injected faults: each applies to some emails and for a limited number of times.

At every SMTP step the server asks whether a fault applies; the oldest that does is used.
"""

import threading
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MailFaultKind = Literal[
    "reject", "reject_and_hang_up", "relay_denied", "defer", "reject_content", "delay", "busy", "drop_at_mail",
    "drop_before_accepting", "drop_after_accepting",
]  # fmt: skip
Step = Literal["MAIL", "RCPT", "DATA"]
STEPS: dict[MailFaultKind, Step] = {
    "busy": "MAIL",
    "drop_at_mail": "MAIL",
    "reject": "RCPT",
    "reject_and_hang_up": "RCPT",
    "relay_denied": "RCPT",
    "defer": "RCPT",
    "reject_content": "DATA",
    "delay": "DATA",
    "drop_before_accepting": "DATA",
    "drop_after_accepting": "DATA",
}


class MailFault(BaseModel):
    """One fault. A `busy` server replies 421 and disconnects; `delay` replies after `seconds`."""

    model_config = ConfigDict(extra="forbid")

    kind: MailFaultKind
    recipient: str | None = None
    """Only emails to this address. It cannot limit faults at MAIL: the server does not know the recipient yet."""
    times: Annotated[int, Field(ge=1)] | None = 1
    """How many times it applies; None for until it is cleared."""
    skip: Annotated[int, Field(ge=0)] = 0
    """How many matching emails are let through first."""
    seconds: Annotated[float, Field(ge=0)] = 1.0


@dataclass
class _ActiveFault:
    fault: MailFault
    to_skip: int
    remaining: int | None


class MailFaults:
    """The active faults; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: list[_ActiveFault] = []

    def add(self, fault: MailFault) -> None:
        """Add a fault."""
        with self._lock:
            self._active.append(_ActiveFault(fault, fault.skip, fault.times))

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._active.clear()

    def next(self, step: Step, recipients: list[str]) -> MailFault | None:
        """Return the oldest fault for this step of an email to `recipients`, and count it as used."""
        with self._lock:
            for active in self._active:
                fault = active.fault
                matches = fault.recipient is None or fault.recipient in recipients
                if STEPS[fault.kind] == step and matches and active.remaining != 0:
                    if active.to_skip:
                        active.to_skip -= 1
                        continue
                    if active.remaining is not None:
                        active.remaining -= 1
                    return fault
        return None
