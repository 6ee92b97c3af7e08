"""Tells a worker's tasks to stop sending, because of a cancellation or because the lease may have expired.

It is in-process state only; what other processes must know is in the database.
See docs/decisions/leases-and-fencing.md.
"""

import asyncio
import time
from typing import NamedTuple

from seedtrust_ops.errors import SeedTrustError


class ClockReading(NamedTuple):
    """The current time of both process clocks, in seconds.

    The monotonic clock stops while the machine is suspended, and the wall clock can be set back: neither alone is a
    safe measure of elapsed time.
    """

    monotonic: float
    wall: float


def read_clocks() -> ClockReading:
    """Return the current time of both clocks."""
    return ClockReading(time.monotonic(), time.time())


class SendCancellation:
    """A request to stop sending, shared by the worker's tasks; the first reason is kept."""

    def __init__(self) -> None:
        self.reason: SeedTrustError | None = None
        self._canceled = asyncio.Event()
        self._lease_ends_at = ClockReading(float("-inf"), float("-inf"))

    def cancel(self, reason: SeedTrustError) -> None:
        """Stop sending because of `reason`; the first reason is kept."""
        self.reason = self.reason or reason
        self._canceled.set()

    async def wait(self, seconds: float) -> None:
        """Wait `seconds`, or until sending is canceled if that is sooner."""
        try:
            await asyncio.wait_for(self._canceled.wait(), seconds)
        except TimeoutError:
            return

    def record_renewal(self, requested_at: ClockReading, seconds: float) -> None:
        """Record that the lease was renewed for `seconds`; `requested_at` was read just before the renewal."""
        self._lease_ends_at = ClockReading(requested_at.monotonic + seconds, requested_at.wall + seconds)

    @property
    def lease_has_ended(self) -> bool:
        """Whether the lease may belong to another worker by now, for example because this process was frozen."""
        now = read_clocks()
        return now.monotonic >= self._lease_ends_at.monotonic or now.wall >= self._lease_ends_at.wall
