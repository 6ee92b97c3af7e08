"""Locks by which one run at a time does some work: rows of `ops.locks`, one for each subject.

They are not advisory locks, because any database login can hold one of those, and with it stop the work.
"""

from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from seedtrust_ops.tables import NamedLock


class Lock(StrEnum):
    """The rows of `ops.locks`."""

    APPROVALS = "approvals"
    BALANCE_REMINDERS = "balance_reminders"
    BALANCE_SNAPSHOT = "balance_snapshot"
    FUNDING = "funding"
    TRANSFER_FAILURES = "transfer_failures"
    UNREADABLE_TRANSFERS = "unreadable_transfers"


def hold_lock(session: Session, lock: Lock) -> None:
    """Wait until no other transaction holds `lock`, and hold it until this one ends."""
    session.execute(select(NamedLock.name).where(NamedLock.name == lock.value).with_for_update()).one()
