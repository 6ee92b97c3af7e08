"""Whether a worker may still send, and why not: a reason to stop, or a lease that may have run out unnoticed.

It is memory within one process; what other processes must know is in the database.
"""

import asyncio
import time
from typing import NamedTuple

from seedtrust_ops.errors import SeedTrustError


class Moment(NamedTuple):
    """This process's time by both of its clocks, in seconds.

    The one stands still while the machine is suspended, the other can be set back: neither alone tells how long ago
    something was.
    """

    steady: float
    wall: float


def moment() -> Moment:
    """Return the present moment."""
    return Moment(time.monotonic(), time.time())


class SendCancellation:
    """Raised once by whoever finds a reason to stop; the first reason stays."""

    def __init__(self) -> None:
        self.reason: SeedTrustError | None = None
        self._raised = asyncio.Event()
        self._lease_ends_at = Moment(float("-inf"), float("-inf"))

    def raise_sign(self, reason: SeedTrustError) -> None:
        """Stop sending for `reason`."""
        self.reason = self.reason or reason
        self._raised.set()

    async def wait(self, seconds: float) -> None:
        """Wait so many seconds, or until sending must stop if that is sooner."""
        try:
            await asyncio.wait_for(self._raised.wait(), seconds)
        except TimeoutError:
            return

    def lease_renewed(self, asked_at: Moment, seconds: float) -> None:
        """Note that the lease was renewed for so many seconds; `asked_at` is the moment before it was asked."""
        self._lease_ends_at = Moment(asked_at.steady + seconds, asked_at.wall + seconds)

    @property
    def lease_has_ended(self) -> bool:
        """Whether the lease may be another's by now: this process may have been frozen and not know it yet."""
        now = moment()
        return now.steady >= self._lease_ends_at.steady or now.wall >= self._lease_ends_at.wall
