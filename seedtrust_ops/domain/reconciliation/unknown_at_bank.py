"""Reads which transfers at the bank nothing explains, for the daily check `nothing_unknown_at_bank`.

It only reads what auto-heal has recorded, and says if that is too old to say anything.
See docs/decisions/unknown-transfers.md.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.transfers.bank_feed import last_read_at
from seedtrust_ops.domain.transfers.unknown_transfers import UnexplainedTransfer, read_unexplained

MAX_FEED_AGE = timedelta(hours=1)
"""If the bank's feed was last read before that, what it would report now is not known."""


@dataclass(frozen=True)
class UnknownAtBank:
    """Every unexplained transfer, first seen first, and when the bank's feed was last read to its end (UTC)."""

    transfers: list[UnexplainedTransfer]
    feed_read_at: datetime | None
    is_current: bool

    @property
    def amount_cents(self) -> int:
        """The sum of their amounts, whatever their status."""
        return sum(one.amount_cents for one in self.transfers)


def read_unknown(session: Session) -> UnknownAtBank:
    """Return what is unknown at the bank now."""
    read_at, now = last_read_at(session), session.scalars(select(func.clock_timestamp())).one()
    is_current = read_at is not None and now - read_at <= MAX_FEED_AGE
    return UnknownAtBank(read_unexplained(session), read_at, is_current)
