"""Reads the bank's feed of changed transfers, for what changed after it looked settled: an ACH that came back.

The cursor moves with each page that was recorded, by the bank's clock, and every reading starts an hour
before it, so that equal or late timestamps are never passed over; recording a word twice changes nothing.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import open_alert
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.domain.transfers.attempts import found_at_bank
from seedtrust_ops.domain.transfers.batch_lifecycle import finish_batches
from seedtrust_ops.domain.transfers.idempotency_keys import transaction_id_of
from seedtrust_ops.domain.transfers.legacy_matching import LegacyTransaction, match_by_reference
from seedtrust_ops.domain.transfers.missing_at_bank import look_for_forgotten
from seedtrust_ops.domain.transfers.status_transitions import Change, apply_bank_statuses
from seedtrust_ops.ports.bank import Bank, BankTransfer
from seedtrust_ops.tables import BankFeedCursor, HuntingtonBatch, HuntingtonTransaction, TransferAttempt

FEED = "huntington"
OVERLAP = timedelta(hours=1)
"""How far before the cursor a reading starts (design, section 4)."""
FIRST_READING = timedelta(days=90)
"""How far back the first reading goes: an ACH can come back 60 days later (design, section 4), and a month more."""


@dataclass
class FeedReading:
    """What one reading of the feed came to."""

    transfers: int = 0
    changes: list[Change] = field(default_factory=list)
    finished: dict[int, str] = field(default_factory=dict)


def last_read_at(session: Session) -> datetime | None:
    """Return when the feed was last read to its end (UTC), None where it never was."""
    return session.scalar(select(BankFeedCursor.last_read_at).where(BankFeedCursor.name == FEED))


async def read_feed(sessions: Sessions, bank: Bank) -> FeedReading:
    """Read the feed from its cursor to its end, page by page, and record what the bank says.

    Raises:
        BankInquiryFailed, BankUnauthorized: as the bank does; what was recorded and the cursor stay.
    """
    reading = FeedReading()
    cursor, now = await asyncio.to_thread(_start, sessions)
    overlap_since = cursor - OVERLAP if cursor else None
    in_the_overlap: set[str] = set()
    async for page in bank.changed_since(overlap_since or now - FIRST_READING):
        if overlap_since is not None:
            in_the_overlap |= {transfer.id for transfer in page}
        words, strangers = await asyncio.to_thread(_match, sessions, page)
        candidates = await asyncio.to_thread(_legacy_candidates, sessions, strangers)
        found, _ = await match_by_reference(sessions, bank, candidates)
        words |= {
            transaction_id: transfer
            for transfer in strangers
            for transaction_id, match in found.items()
            if match.id == transfer.id
        }
        # By the bank's clock, since that is what it is asked by; but one that runs ahead of ours must not carry
        # the cursor past what is still to come.
        newest = min(max((transfer.updated_at for transfer in page), default=now), now)
        if page and (cursor is None or newest > cursor):
            cursor = newest
        changes, finished = await asyncio.to_thread(
            run_in_transaction, sessions, lambda session, words=words, upto=cursor: _record(session, words, upto)
        )
        reading.transfers += len(page)
        reading.changes += changes
        reading.finished |= finished
    if overlap_since is not None:
        await look_for_forgotten(sessions, bank, overlap_since, in_the_overlap)
    read_up_to = cursor or now - FIRST_READING + OVERLAP
    await asyncio.to_thread(run_in_transaction, sessions, lambda session: _move_cursor(session, read_up_to, whole=True))
    return reading


def _start(sessions: Sessions) -> tuple[datetime | None, datetime]:
    with sessions() as session:
        cursor = session.scalar(select(BankFeedCursor.read_up_to).where(BankFeedCursor.name == FEED))
        return cursor, session.scalars(select(func.clock_timestamp())).one()


def _match(sessions: Sessions, page: Sequence[BankTransfer]) -> tuple[dict[int, BankTransfer], list[BankTransfer]]:
    """Match transfers to transactions by our key, then by the bank's id; return the strangers too."""
    by_key = {transaction_id_of(transfer.idempotency_key): transfer for transfer in page}
    with sessions() as session:
        known = set(
            session.scalars(
                select(HuntingtonTransaction.id).where(
                    in_array(HuntingtonTransaction.id, [one for one in by_key if one is not None])
                )
            )
        )
        by_bank_id = dict(
            session.execute(
                select(HuntingtonTransaction.bank_transfer_id, HuntingtonTransaction.id).where(
                    HuntingtonTransaction.bank_transfer_id.in_([transfer.id for transfer in page])
                )
            ).all()
        )
    words: dict[int, BankTransfer] = {}
    strangers = []
    for transfer in page:
        transaction_id = transaction_id_of(transfer.idempotency_key)
        if transaction_id not in known:
            transaction_id = by_bank_id.get(transfer.id)
        if transaction_id is None:
            strangers.append(transfer)
        else:
            words[transaction_id] = transfer
    return words, strangers


def _legacy_candidates(sessions: Sessions, strangers: Sequence[BankTransfer]) -> list[LegacyTransaction]:
    """Return the transactions that strangers' references name and that nothing ties to the bank yet.

    Where a stranger names a transaction that we sent under our own key, it was paid twice: an alert says so.
    """
    references = {int(one.reference): one for one in strangers if one.reference.isascii() and one.reference.isdigit()}
    references = {number: one for number, one in references.items() if number < 2**63}
    if not references:
        return []
    sent_by_us = select(TransferAttempt.transaction_id).where(
        in_array(TransferAttempt.transaction_id, references), TransferAttempt.attempt > 0
    )
    with sessions() as session:
        rows = session.execute(
            select(
                HuntingtonTransaction.id,
                HuntingtonTransaction.amount_cents,
                HuntingtonTransaction.bank_transfer_id,
                HuntingtonTransaction.id.in_(sent_by_us).label("ours"),
            ).where(in_array(HuntingtonTransaction.id, references))
        ).all()
    # Also where nothing is known yet of the one that we sent: by the time it is, this page of the feed is long past.
    foreign = {row.id: references[row.id] for row in rows if row.ours}
    if foreign:
        run_in_transaction(sessions, lambda session: _tell_of_second_transfer(session, foreign))
    return [
        LegacyTransaction(row.id, row.amount_cents) for row in rows if row.bank_transfer_id is None and not row.ours
    ]


def _tell_of_second_transfer(session: Session, foreign: dict[int, BankTransfer]) -> None:
    for transaction_id, transfer in foreign.items():
        open_alert(
            session,
            "second_transfer",
            f"transaction {transaction_id}",
            "CRITICAL",
            f"The bank has transfer {transfer.id} ({transfer.amount_cents} cents, {transfer.status}) with "
            f"reference {transaction_id} under a key that is not ours, beside the one that we sent. The payee may "
            "have been paid twice: compare both with Huntington.",
        )


def _record(
    session: Session, words: dict[int, BankTransfer], read_up_to: datetime | None
) -> tuple[list[Change], dict[int, str]]:
    batches = select(HuntingtonTransaction.batch_id).where(in_array(HuntingtonTransaction.id, words))
    session.execute(
        select(HuntingtonBatch.id).where(HuntingtonBatch.id.in_(batches)).order_by(HuntingtonBatch.id).with_for_update()
    )
    changes = apply_bank_statuses(session, words)
    found_at_bank(session, {change.transaction_id: change.transfer for change in changes}, "seen in the bank's feed")
    if read_up_to is not None:
        _move_cursor(session, read_up_to, whole=False)
    return changes, finish_batches(session, {change.batch_id for change in changes})


def _move_cursor(session: Session, read_up_to: datetime, *, whole: bool) -> None:
    """Move the cursor forward, never back; a whole reading also says when it ended."""
    statement = insert(BankFeedCursor).values(
        name=FEED,
        read_up_to=read_up_to,
        last_read_at=func.clock_timestamp() if whole else func.to_timestamp(0),
    )
    changed = {"read_up_to": func.greatest(BankFeedCursor.read_up_to, read_up_to)}
    if whole:
        changed["last_read_at"] = func.clock_timestamp()
    session.execute(statement.on_conflict_do_update(index_elements=[BankFeedCursor.name], set_=changed))
