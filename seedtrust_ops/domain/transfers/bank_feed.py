"""Reads the bank's feed of changed transfers, and detects transfers that the bank has lost.

The feed shows changes after a transfer was final, such as an ACH return. Its cursor advances by the bank's clock with
each recorded page, and every read starts an hour before it, so that equal or late timestamps are never skipped;
recording a status twice changes nothing.
See docs/decisions/bank-feed.md.
"""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Row, exists, func, or_, select, union
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import open_alert
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.row_failures import RowByRow, RowFailure
from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.domain.transfers.attempts import is_sent_by_us, parse_idempotency_key, record_bank_findings
from seedtrust_ops.domain.transfers.batch_lifecycle import finish_batches, lock_batches
from seedtrust_ops.domain.transfers.evidence import (
    MISSING_TRANSFER_RULE,
    ensure_evidence,
    is_any_missing,
    record_missing,
)
from seedtrust_ops.domain.transfers.legacy_takeover import (
    LegacyTransaction,
    match_by_reference,
    was_begun_before_cutover,
)
from seedtrust_ops.domain.transfers.status_transitions import StatusChange, apply_bank_statuses
from seedtrust_ops.domain.transfers.unknown_transfers import (
    SECOND_TRANSFER_RULE,
    UnmatchedTransfer,
    explained_by_people,
    parse_reference,
    record_unknown,
    resolve_explained,
)
from seedtrust_ops.domain.transfers.unreadable_transfers import (
    record_unreadable,
    require_own_references,
    resolve_readable,
)
from seedtrust_ops.formatting import format_dollars
from seedtrust_ops.ports.bank import LOOKUP_PAGE_SIZE, Bank, BankTransfer, BankTransfers, UnreadableTransfer
from seedtrust_ops.tables import (
    Alert,
    BankFeedCursor,
    HuntingtonBatch,
    HuntingtonTransaction,
    TransferAttempt,
    TransferEvidence,
)

FEED_NAME = "huntington"
OVERLAP = timedelta(hours=1)
"""How far before the cursor a read starts (docs/rules.md, section 4)."""
FIRST_READ_WINDOW = timedelta(days=90)
"""How far back the first read goes: an ACH can be returned 60 days later (docs/rules.md, section 4), plus a month."""


@dataclass
class FeedResult:
    """The results of one read of the feed."""

    transfers: int = 0
    changes: list[StatusChange] = field(default_factory=list)
    finished: dict[int, str] = field(default_factory=dict)
    unrecorded: dict[int, RowFailure] = field(default_factory=dict)
    """Why nothing could be recorded for a transaction, by its id; its page is read again by the next auto-heal run."""

    def add(self, other: "FeedResult") -> None:
        """Add the results of another page."""
        self.transfers += other.transfers
        self.changes += other.changes
        self.finished |= other.finished


def last_read_at(session: Session) -> datetime | None:
    """Return when the feed was last read to its end (UTC), or None if it never was."""
    return session.scalar(select(BankFeedCursor.last_read_at).where(BankFeedCursor.name == FEED_NAME))


async def read_feed(sessions: Sessions, bank: Bank, *, grace_seconds: float) -> FeedResult:
    """Read the feed from its cursor to its end, page by page, and record the bank's statuses.

    `grace_seconds` is how long a transfer must be missing before the bank counts as having lost it.

    Raises:
        BankInquiryFailed, BankUnauthorized: from the bank; recorded pages and their cursor are kept.
    """
    result = FeedResult()
    rows = RowByRow(sessions, lambda _session: None)
    cursor, now = await asyncio.to_thread(_start, sessions)
    overlap_since = cursor - OVERLAP if cursor else None
    seen_in_overlap: set[str] = set()
    async for transfers in bank.changed_since(overlap_since or now - FIRST_READ_WINDOW):
        page = require_own_references(transfers)
        if overlap_since is not None:
            seen_in_overlap |= {transfer.id for transfer in page.readable}
            seen_in_overlap |= {one.bank_transfer_id for one in page.unreadable if one.bank_transfer_id is not None}
        # The bank's clock, because the feed is queried by it. If it runs ahead of ours, it must not move the cursor
        # past changes that are still to come.
        newest = min(max((transfer.updated_at for transfer in page.readable), default=now), now)
        if page.readable and (cursor is None or newest > cursor):
            cursor = newest
        result.add(await record_transfers(sessions, bank, rows, page, read_up_to=cursor))
    result.unrecorded = rows.failures
    if overlap_since is not None:
        await check_for_missing_transfers(sessions, bank, overlap_since, seen_in_overlap, grace_seconds=grace_seconds)
    read_up_to = cursor or now - FIRST_READ_WINDOW + OVERLAP
    await asyncio.to_thread(run_in_transaction, sessions, resolve_explained)
    if not _may_pass(rows):
        await asyncio.to_thread(
            run_in_transaction, sessions, lambda session: _move_cursor(session, read_up_to, is_complete=True)
        )
    return result


@dataclass
class _Matches:
    """The transfers of a page by the transaction that explains them, those that none explains, and unreadable ones.

    `second` has transfers under our key beside the first one: the bank contradicts itself, and nothing explains them.
    """

    explained: dict[int, BankTransfer] = field(default_factory=dict)
    second: list[tuple[int, BankTransfer]] = field(default_factory=list)
    unmatched: list[UnmatchedTransfer] = field(default_factory=list)
    unreadable: list[UnreadableTransfer] = field(default_factory=list)

    @property
    def transfers(self) -> list[BankTransfer]:
        """All transfers that can be read."""
        return [
            *self.explained.values(),
            *(transfer for _, transfer in self.second),
            *(one.transfer for one in self.unmatched),
        ]

    @property
    def transaction_ids(self) -> list[int]:
        """The transactions that the transfers belong to."""
        return sorted(self.explained.keys() | {transaction_id for transaction_id, _ in self.second})

    def only(self, transaction_ids: Collection[int]) -> "_Matches":
        """Return the transfers of these transactions."""
        return _Matches(
            {one: transfer for one, transfer in self.explained.items() if one in transaction_ids},
            [(one, transfer) for one, transfer in self.second if one in transaction_ids],
        )


async def record_transfers(
    sessions: Sessions, bank: Bank, rows: RowByRow, page: BankTransfers, *, read_up_to: datetime | None = None
) -> FeedResult:
    """Record the bank's transfers, whatever they belong to, and store those that cannot be read or recorded.

    If they are a page of the feed, `read_up_to` is the cursor after it. What could not be recorded is in `rows`; if the
    next try may succeed, the cursor does not move past it.

    Raises:
        BankInquiryFailed, BankUnauthorized: from the bank, which is asked about references; nothing is recorded.
    """
    matches = await _match(sessions, bank, page.readable)
    matches.unreadable = page.unreadable
    record = partial(_record_some, matches, None if _may_pass(rows) else read_up_to)
    parts = await asyncio.to_thread(rows.write, matches.transaction_ids, record)
    if len(parts) != 1 or rows.failures:
        unreadable = [*matches.unreadable, *_unrecordable(matches, rows)]
        rest = _Matches(unmatched=matches.unmatched, unreadable=unreadable)
        record_rest = partial(_record, matches=rest, read_up_to=None if _may_pass(rows) else read_up_to)
        parts.append(await asyncio.to_thread(run_in_transaction, sessions, record_rest))
    result = FeedResult(len(page.readable))
    for changes, finished in parts:
        result.changes += changes
        result.finished |= finished
    return result


def _may_pass(rows: RowByRow) -> bool:
    """Return whether something could not be recorded that perhaps can be when the feed is read next."""
    return any(failure.may_pass for failure in rows.failures.values())


def _unrecordable(matches: _Matches, rows: RowByRow) -> list[UnreadableTransfer]:
    """Return the transfers that could not be recorded for a reason that may last for ever."""
    return [
        UnreadableTransfer(
            transfer.id, transfer.idempotency_key, transfer.reference, f"It could not be recorded: {failure.problem}."
        )
        for transaction_id, failure in rows.failures.items()
        if not failure.may_pass
        for transfer in matches.only([transaction_id]).transfers
    ]


def _start(sessions: Sessions) -> tuple[datetime | None, datetime]:
    with sessions() as session:
        cursor = session.scalar(select(BankFeedCursor.read_up_to).where(BankFeedCursor.name == FEED_NAME))
        return cursor, session.scalars(select(func.clock_timestamp())).one()


async def _match(sessions: Sessions, bank: Bank, page: Sequence[BankTransfer]) -> _Matches:
    """Match transfers to transactions: by our key, by the bank's id, and what the legacy worker sent by reference."""
    matches, unmatched = await asyncio.to_thread(_match_by_id, sessions, page)
    referenced = await asyncio.to_thread(_referenced_transactions, sessions, unmatched)
    candidates = [one.legacy for one in referenced.values() if one.problem is None]
    found, _ = await match_by_reference(sessions, bank, candidates)
    matched_ids = {transfer.id: transaction_id for transaction_id, transfer in found.items()}
    for transfer in unmatched:
        number = parse_reference(transfer.reference)
        transaction_id = matched_ids.get(transfer.id)
        if transaction_id is not None and transaction_id not in matches.explained:
            matches.explained[transaction_id] = transfer
        else:
            matches.unmatched.append(
                UnmatchedTransfer(transfer, _describe_problem(transfer, referenced.get(number or 0)))
            )
    return matches


def _match_by_id(sessions: Sessions, page: Sequence[BankTransfer]) -> tuple[_Matches, list[BankTransfer]]:
    """Match transfers to transactions by our key, then by the bank's id; also return the unmatched transfers."""
    keyed = [one for one in (parse_idempotency_key(transfer.idempotency_key) for transfer in page) if one is not None]
    bank_ids = [transfer.id for transfer in page]
    with sessions() as session:
        known = set(
            session.scalars(
                union(
                    select(HuntingtonTransaction.id).where(in_array(HuntingtonTransaction.id, keyed)),
                    # A transaction that was deleted after it was sent.
                    select(TransferEvidence.transaction_id).where(in_array(TransferEvidence.transaction_id, keyed)),
                )
            )
        )
        first_transfers = {
            row.transaction_id: row.bank_transfer_id
            for row in session.execute(
                select(TransferEvidence.transaction_id, TransferEvidence.bank_transfer_id).where(
                    in_array(TransferEvidence.transaction_id, keyed), TransferEvidence.bank_transfer_id.is_not(None)
                )
            )
        }
        by_bank_id = {
            row.bank_transfer_id: row.id
            for row in session.execute(
                select(HuntingtonTransaction.bank_transfer_id, HuntingtonTransaction.id).where(
                    HuntingtonTransaction.bank_transfer_id.in_(bank_ids)
                )
            )
        }
        explained = explained_by_people(session, bank_ids)
    matches, unmatched = _Matches(), []
    for transfer in page:
        transaction_id = parse_idempotency_key(transfer.idempotency_key)
        if transaction_id not in known:
            transaction_id = by_bank_id.get(transfer.id) or explained.get(transfer.id)
        if transaction_id is None:
            unmatched.append(transfer)
        elif (
            first_transfers.get(transaction_id, transfer.id) != transfer.id
            or matches.explained.get(transaction_id, transfer).id != transfer.id
        ):
            matches.second.append((transaction_id, transfer))
        else:
            matches.explained[transaction_id] = transfer
    return matches, unmatched


@dataclass(frozen=True)
class _Referenced:
    """The transaction that a transfer under a foreign key references; `problem` is None if they may belong together."""

    legacy: LegacyTransaction
    problem: str | None


def _referenced_transactions(sessions: Sessions, unmatched: Sequence[BankTransfer]) -> dict[int, _Referenced]:
    """Return the transactions that unmatched transfers reference.

    If one references a transaction that we sent under our own key, it may have been paid twice: an alert is opened,
    even if the result of our own request is not known yet.
    """
    numbers = {one.id: number for one in unmatched if (number := parse_reference(one.reference)) is not None}
    if not numbers:
        return {}
    with sessions() as session:
        rows = session.execute(
            select(
                HuntingtonTransaction.id,
                HuntingtonTransaction.amount_cents,
                HuntingtonTransaction.bank_transfer_id,
                is_sent_by_us(HuntingtonTransaction.id).label("is_sent_by_us"),
                was_begun_before_cutover().label("may_be_legacy"),
            )
            .outerjoin(HuntingtonBatch, HuntingtonBatch.id == HuntingtonTransaction.batch_id)
            .where(in_array(HuntingtonTransaction.id, set(numbers.values())))
        ).all()
        explained = explained_by_people(session, numbers)
    sent_by_us = {row.id for row in rows if row.is_sent_by_us}
    foreign = {
        numbers[one.id]: one for one in unmatched if numbers.get(one.id) in sent_by_us and one.id not in explained
    }
    if foreign:
        run_in_transaction(sessions, lambda session: _open_second_transfer_alerts(session, foreign))
    return {row.id: _Referenced(LegacyTransaction(row.id, row.amount_cents), _find_problem(row)) for row in rows}


def _find_problem(row: Row[*tuple[Any, ...]]) -> str | None:
    if row.is_sent_by_us:
        return f"it is a second transfer with the reference of transaction {row.id}, which we sent under our own key"
    if row.bank_transfer_id is not None:
        return f"it is a second transfer with the reference of transaction {row.id}, whose transfer is known"
    if not row.may_be_legacy:
        return f"it has the reference of transaction {row.id}, which we have not sent"
    return None


def _describe_problem(transfer: BankTransfer, referenced: _Referenced | None) -> str:
    """Return why no transaction explains a transfer, as a clause for people."""
    if referenced is None:
        return "its reference is no transaction's number"
    if referenced.problem is not None:
        return referenced.problem
    if transfer.amount_cents != referenced.legacy.amount_cents:
        cents = format_dollars(referenced.legacy.amount_cents)
        return f"it has the reference of transaction {referenced.legacy.id}, which is for {cents}"
    return f"it is one of several transfers with the reference and amount of transaction {referenced.legacy.id}"


def _open_second_transfer_alerts(session: Session, foreign: dict[int, BankTransfer]) -> None:
    for transaction_id, transfer in foreign.items():
        open_alert(
            session,
            SECOND_TRANSFER_RULE,
            f"transaction {transaction_id}",
            "CRITICAL",
            f"The bank has transfer {transfer.id} ({transfer.amount_cents} cents, {transfer.status}) with "
            f"reference {transaction_id} under an idempotency key that is not ours, in addition to the transfer that "
            "we sent. The payee may have been paid twice: review both transfers with Huntington, then run "
            f"`seedtrust-ops transfers explain {transfer.id}`.",
        )


def _record_some(
    matches: _Matches, read_up_to: datetime | None, session: Session, transaction_ids: Sequence[int]
) -> tuple[list[StatusChange], dict[int, str]]:
    """Record the whole page and the cursor, or only the transfers of some transactions."""
    if list(transaction_ids) == matches.transaction_ids:
        return _record(session, matches, read_up_to)
    return _record(session, matches.only(transaction_ids), None)


def _record(
    session: Session, matches: _Matches, read_up_to: datetime | None
) -> tuple[list[StatusChange], dict[int, str]]:
    seconds = [{transaction_id: transfer} for transaction_id, transfer in matches.second]
    ids = matches.explained.keys() | {transaction_id for transaction_id, _ in matches.second}
    lock_batches(session, select(HuntingtonTransaction.batch_id).where(in_array(HuntingtonTransaction.id, ids)))
    # Before accounts are locked, as in `explanation`.
    record_unknown(
        session,
        [
            *matches.unmatched,
            *(
                UnmatchedTransfer(transfer, f"it is a second transfer under the key of transaction {transaction_id}")
                for transaction_id, transfer in matches.second
            ),
        ],
    )
    changes = [change for one in (matches.explained, *seconds) for change in apply_bank_statuses(session, one)]
    record_bank_findings(
        session, {change.transaction_id: change.transfer for change in changes}, "seen in the bank's feed"
    )
    if read_up_to is not None:
        _move_cursor(session, read_up_to, is_complete=False)
    finished = finish_batches(session, {change.batch_id for change in changes})
    record_unreadable(session, matches.unreadable)
    resolve_readable(session, matches.transfers)
    return changes, finished


def _move_cursor(session: Session, read_up_to: datetime, *, is_complete: bool) -> None:
    """Move the cursor forward, never back; a complete read also records when it ended."""
    statement = insert(BankFeedCursor).values(
        name=FEED_NAME,
        read_up_to=read_up_to,
        last_read_at=func.clock_timestamp() if is_complete else func.to_timestamp(0),
    )
    changed = {"read_up_to": func.greatest(BankFeedCursor.read_up_to, read_up_to)}
    if is_complete:
        changed["last_read_at"] = func.clock_timestamp()
    session.execute(statement.on_conflict_do_update(index_elements=[BankFeedCursor.name], set_=changed))


def has_missing_transfers(session: Session) -> bool:
    """Return whether the bank does not find a transfer that it had, so that its 'unknown' is no evidence."""
    alert_is_open = exists().where(Alert.rule == MISSING_TRANSFER_RULE, Alert.resolved_at.is_(None))
    return bool(session.scalar(select(or_(alert_is_open, is_any_missing()))))


def open_missing_transfer_alerts(session: Session, transaction_ids: Collection[int]) -> None:
    """Open the alert for each transaction whose transfer the bank had and has not found for the grace period."""
    for transaction_id in transaction_ids:
        open_alert(
            session,
            MISSING_TRANSFER_RULE,
            f"transaction {transaction_id}",
            "CRITICAL",
            f"The bank had accepted transaction {transaction_id} and no longer knows it (the bank may have restored a "
            f"backup). The transaction stays as it is and will not be resent. Ask Huntington whether the payee was "
            "paid, and if the bank does not find it again, run `seedtrust-ops transfers settle "
            f"{transaction_id}`. Until then no transaction with an unknown outcome is resent.",
        )


async def check_for_missing_transfers(
    sessions: Sessions, bank: Bank, since: datetime, in_feed: Collection[str], *, grace_seconds: float
) -> None:
    """Look up the recently recorded transfers that are missing from the feed, and record those that are lost.

    Args:
        sessions: the application's database.
        bank: the bank.
        since: the start of the feed that was read (UTC); transfers recorded since then should be in it.
        in_feed: the bank's ids of the transfers that were in it.
        grace_seconds: how long a transfer must be missing before an alert is opened.

    Raises:
        BankInquiryFailed, BankUnauthorized: from the bank.
    """
    missing = await asyncio.to_thread(_missing_from_feed, sessions, since, in_feed)
    for page in _pages(missing):
        answer = await bank.find_by_references([str(one) for one in page])
        known = {transfer.id for transfer in answer.readable}
        unreadable = {int(one.reference) for one in answer.unreadable if one.reference is not None}
        lost = [
            one for one, bank_transfer_id in page.items() if bank_transfer_id not in known and one not in unreadable
        ]
        if lost or answer.unreadable:
            await asyncio.to_thread(
                run_in_transaction,
                sessions,
                lambda session, lost=lost, answer=answer: record_lost(
                    session, lost, grace_seconds, unreadable=answer.unreadable
                ),
            )


def record_lost(
    session: Session,
    transaction_ids: Sequence[int],
    grace_seconds: float,
    *,
    unreadable: Sequence[UnreadableTransfer] = (),
) -> None:
    """Record that lookups do not find these transfers, and alert about those missing for longer than the grace time.

    `unreadable` is what the same lookups found and could not read.
    """
    lock_batches(
        session, select(HuntingtonTransaction.batch_id).where(in_array(HuntingtonTransaction.id, transaction_ids))
    )
    ensure_evidence(session, transaction_ids)
    now = session.scalars(select(func.clock_timestamp())).one()
    open_missing_transfer_alerts(session, record_missing(session, transaction_ids, now, grace_seconds))
    record_unreadable(session, unreadable)


MissingFromFeed = dict[int, str | None]
"""The bank's id of the transfer, by transaction id."""


def _missing_from_feed(sessions: Sessions, since: datetime, in_feed: Collection[str]) -> MissingFromFeed:
    transaction = HuntingtonTransaction
    recently_recorded = select(TransferAttempt.transaction_id).where(
        TransferAttempt.finished_at >= since, TransferAttempt.bank_transfer_id.is_not(None)
    )
    with sessions() as session:
        rows = session.execute(
            select(transaction.id, transaction.bank_transfer_id)
            .where(
                transaction.id.in_(recently_recorded),
                transaction.status.in_(("submitted", "completed")),
                transaction.bank_transfer_id.is_not(None),
            )
            .order_by(transaction.id)
        )
        return {row.id: row.bank_transfer_id for row in rows if row.bank_transfer_id not in in_feed}


def _pages(missing: MissingFromFeed) -> Iterator[MissingFromFeed]:
    items = list(missing.items())
    for start in range(0, len(items), LOOKUP_PAGE_SIZE):
        yield dict(items[start : start + LOOKUP_PAGE_SIZE])
