"""Clears who is on the site and what they are viewing: rows that go stale when a browser closes without notice.

Clearing is harmless, because an open browser writes its rows again.
"""

from dataclasses import dataclass

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.tables import User, ViewingDisbursementRequest, ViewingPayment


@dataclass(frozen=True)
class ClearedPresence:
    """How many rows were cleared."""

    users: int
    viewed_requests: int
    viewed_payments: int


def clear_presence(session: Session) -> ClearedPresence:
    """Set all users off site and empty both viewing tables, in one statement each.

    Users whose rows another application holds locked are left to the next run.
    """
    on_site = select(User.id).where(User.is_on_site).with_for_update(skip_locked=True)
    return ClearedPresence(
        users=_count(session.execute(update(User).where(User.id.in_(on_site)).values(is_on_site=False))),
        viewed_requests=_count(session.execute(delete(ViewingDisbursementRequest))),
        viewed_payments=_count(session.execute(delete(ViewingPayment))),
    )


def _count(result: object) -> int:
    assert isinstance(result, CursorResult)
    return result.rowcount
