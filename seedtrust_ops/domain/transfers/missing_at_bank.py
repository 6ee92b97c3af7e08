"""A bank that has forgotten transfers (restored from a backup, for one): how that is noticed, and what stops then.

Whether a payee was paid that the bank knows nothing of, only people can find out. Until they have, 'unknown' is no
word to act on, whatever it is said of.
"""

import asyncio
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import open_alert
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.ports.bank import LOOK_UP_PAGE, Bank
from seedtrust_ops.tables import Alert, HuntingtonTransaction, TransferAttempt

FORGOTTEN = "transfer_forgotten_by_bank"


def bank_has_forgotten(session: Session) -> bool:
    """Return whether the bank is known to have forgotten a transfer and nobody has settled that yet."""
    return bool(session.scalar(select(exists().where(Alert.rule == FORGOTTEN, Alert.resolved_at.is_(None)))))


def tell_of_forgotten(session: Session, statuses: Mapping[int, str]) -> None:
    """Open the alert about each transaction of which the bank knows nothing any more, though it did once."""
    for transaction_id, status in statuses.items():
        open_alert(
            session,
            FORGOTTEN,
            f"transaction {transaction_id}",
            "CRITICAL",
            f"The bank had taken transaction {transaction_id} and now knows nothing of it (it may have been restored "
            f"from a backup). It stays '{status}' and is not sent again: ask Huntington whether the payee was paid, "
            "and set its status by hand. Until this alert is resolved, nothing whose request got no answer is sent "
            "again.",
        )


async def look_for_forgotten(sessions: Sessions, bank: Bank, since: datetime, in_the_feed: Collection[str]) -> None:
    """Ask the bank about what it said lately and no longer says in its feed, and tell of what it has forgotten.

    Args:
        sessions: the application's database.
        bank: the bank.
        since: from when on (UTC) the feed was read; what was recorded since then should be in it.
        in_the_feed: the bank's ids of the transfers that were.

    Raises:
        BankInquiryFailed, BankUnauthorized: as the bank does.
    """
    left_out = await asyncio.to_thread(_left_out, sessions, since, in_the_feed)
    for page in _pages(left_out):
        known = {transfer.id for transfer in await bank.find_by_references([str(one) for one in page])}
        forgotten = {one: status for one, (status, bank_transfer_id) in page.items() if bank_transfer_id not in known}
        if forgotten:
            await asyncio.to_thread(
                run_in_transaction, sessions, lambda session, forgotten=forgotten: tell_of_forgotten(session, forgotten)
            )


LeftOut = dict[int, tuple[str, str | None]]


def _left_out(sessions: Sessions, since: datetime, in_the_feed: Collection[str]) -> LeftOut:
    transaction = HuntingtonTransaction
    said_lately = select(TransferAttempt.transaction_id).where(
        TransferAttempt.finished_at >= since, TransferAttempt.bank_transfer_id.is_not(None)
    )
    with sessions() as session:
        rows = session.execute(
            select(transaction.id, transaction.status, transaction.bank_transfer_id)
            .where(
                transaction.id.in_(said_lately),
                transaction.status.in_(("submitted", "completed")),
                transaction.bank_transfer_id.is_not(None),
            )
            .order_by(transaction.id)
        )
        return {row.id: (row.status, row.bank_transfer_id) for row in rows if row.bank_transfer_id not in in_the_feed}


def _pages(left_out: LeftOut) -> Iterator[LeftOut]:
    items = list(left_out.items())
    for start in range(0, len(items), LOOK_UP_PAGE):
        yield dict(items[start : start + LOOK_UP_PAGE])
