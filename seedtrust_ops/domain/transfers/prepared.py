"""A transaction that was looked at and put on record, and waits for its request to leave; and how long that may take.

Putting on record and sending are `sending`'s.
"""

from dataclasses import dataclass

from seedtrust_ops.domain.transfers.attempts import StartedAttempt
from seedtrust_ops.domain.transfers.stopping import Moment, moment
from seedtrust_ops.tables import HuntingtonTransaction

FRESH_SECONDS = 5.0
"""A request that has not left so long after it was put on record (a slow bank, a frozen worker) is looked at anew."""


@dataclass(frozen=True)
class Prepared:
    """A transaction whose attempt is committed; `looked_at` is the moment before halts, batch and request were read."""

    transaction: HuntingtonTransaction
    attempt: StartedAttempt
    looked_at: Moment

    @property
    def is_fresh(self) -> bool:
        """Whether its request may leave without another look."""
        now = moment()
        return max(now.steady - self.looked_at.steady, now.wall - self.looked_at.wall) < FRESH_SECONDS
