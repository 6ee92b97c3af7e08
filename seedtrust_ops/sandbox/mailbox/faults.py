"""How the mail server is told to fail: orders, each for some letters and for so many times.

The server asks at each step of a letter whether an order is about it; the oldest that is, is followed.
"""

import threading
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Trouble = Literal[
    "refuse", "postpone", "refuse_content", "delay", "busy", "drop_at_mail", "drop_before_accepting",
    "drop_after_accepting",
]  # fmt: skip
Step = Literal["MAIL", "RCPT", "DATA"]
STEPS: dict[Trouble, Step] = {
    "busy": "MAIL",
    "drop_at_mail": "MAIL",
    "refuse": "RCPT",
    "postpone": "RCPT",
    "refuse_content": "DATA",
    "delay": "DATA",
    "drop_before_accepting": "DATA",
    "drop_after_accepting": "DATA",
}


class Order(BaseModel):
    """One order. A `busy` server says 421 and hangs up; `delay` answers after `seconds`."""

    model_config = ConfigDict(extra="forbid")

    trouble: Trouble
    recipient: str | None = None
    """Only letters to this address; what happens at MAIL happens before the server knows it."""
    times: Annotated[int, Field(ge=1)] | None = 1
    """None: until cleared."""
    skip: Annotated[int, Field(ge=0)] = 0
    """So many letters that it is about are let through first."""
    seconds: Annotated[float, Field(ge=0)] = 1.0


@dataclass
class _Standing:
    order: Order
    to_skip: int
    left: int | None


class Orders:
    """The orders that stand; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._standing: list[_Standing] = []

    def give(self, order: Order) -> None:
        """Add an order."""
        with self._lock:
            self._standing.append(_Standing(order, order.skip, order.times))

    def clear(self) -> None:
        """End all orders."""
        with self._lock:
            self._standing.clear()

    def next(self, step: Step, recipients: list[str]) -> Order | None:
        """Return the oldest order about this step of a letter to these, and count it as followed."""
        with self._lock:
            for standing in self._standing:
                order = standing.order
                about = order.recipient is None or order.recipient in recipients
                if STEPS[order.trouble] == step and about and standing.left != 0:
                    if standing.to_skip:
                        standing.to_skip -= 1
                        continue
                    if standing.left is not None:
                        standing.left -= 1
                    return order
        return None
