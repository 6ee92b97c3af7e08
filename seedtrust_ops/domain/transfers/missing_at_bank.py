"""Detects transfers that the bank has lost (after restoring a backup, for example), and blocks resending meanwhile.

Only a person can find out whether a payee was paid by a transfer that the bank no longer has. Until then, an 'unknown'
from the bank is not acted on for any transaction.
See docs/decisions/bank-feed.md.
"""

import asyncio
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import open_alert
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.ports.bank import LOOKUP_PAGE_SIZE, Bank
from seedtrust_ops.tables import Alert, HuntingtonTransaction, TransferAttempt

MISSING_TRANSFER_RULE = "transfer_forgotten_by_bank"


def has_missing_transfers(session: Session) -> bool:
    """Return whether an alert about a transfer that the bank has lost is still open."""
    return bool(
        session.scalar(select(exists().where(Alert.rule == MISSING_TRANSFER_RULE, Alert.resolved_at.is_(None))))
    )


def open_missing_transfer_alerts(session: Session, statuses: Mapping[int, str]) -> None:
    """Open the alert for each transaction (id to status) that the bank had accepted and no longer knows."""
    for transaction_id, status in statuses.items():
        open_alert(
            session,
            MISSING_TRANSFER_RULE,
            f"transaction {transaction_id}",
            "CRITICAL",
            f"The bank had accepted transaction {transaction_id} and no longer knows it (the bank may have restored a "
            f"backup). The transaction stays '{status}' and will not be resent. Ask Huntington whether the payee was "
            "paid, and set its status by hand. Until this alert is resolved, no transaction with an unknown outcome "
            "is resent.",
        )


async def check_for_missing_transfers(
    sessions: Sessions, bank: Bank, since: datetime, in_feed: Collection[str]
) -> None:
    """Look up the recently recorded transfers that are missing from the feed; open an alert for each one lost.

    Args:
        sessions: the application's database.
        bank: the bank.
        since: the start of the feed that was read (UTC); transfers recorded since then should be in it.
        in_feed: the bank's ids of the transfers that were in it.

    Raises:
        BankInquiryFailed, BankUnauthorized: from the bank.
    """
    missing = await asyncio.to_thread(_missing_from_feed, sessions, since, in_feed)
    for page in _pages(missing):
        known = {transfer.id for transfer in await bank.find_by_references([str(one) for one in page])}
        lost = {one: status for one, (status, bank_transfer_id) in page.items() if bank_transfer_id not in known}
        if lost:
            await asyncio.to_thread(
                run_in_transaction,
                sessions,
                lambda session, lost=lost: open_missing_transfer_alerts(session, lost),
            )


MissingFromFeed = dict[int, tuple[str, str | None]]


def _missing_from_feed(sessions: Sessions, since: datetime, in_feed: Collection[str]) -> MissingFromFeed:
    transaction = HuntingtonTransaction
    recently_recorded = select(TransferAttempt.transaction_id).where(
        TransferAttempt.finished_at >= since, TransferAttempt.bank_transfer_id.is_not(None)
    )
    with sessions() as session:
        rows = session.execute(
            select(transaction.id, transaction.status, transaction.bank_transfer_id)
            .where(
                transaction.id.in_(recently_recorded),
                transaction.status.in_(("submitted", "completed")),
                transaction.bank_transfer_id.is_not(None),
            )
            .order_by(transaction.id)
        )
        return {row.id: (row.status, row.bank_transfer_id) for row in rows if row.bank_transfer_id not in in_feed}


def _pages(missing: MissingFromFeed) -> Iterator[MissingFromFeed]:
    items = list(missing.items())
    for start in range(0, len(items), LOOKUP_PAGE_SIZE):
        yield dict(items[start : start + LOOKUP_PAGE_SIZE])
