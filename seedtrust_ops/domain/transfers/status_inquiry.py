"""Looks up the status of every open transaction at the bank, and records it.

Open means: `processing` without a worker, `submitted`, or a false failure of the legacy worker. A worker that takes
over a batch looks up that batch only; auto-heal looks up all of them.
See docs/decisions/unknown-outcomes.md.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.domain.transfers.attempts import (
    AttemptEnd,
    AttemptOutcome,
    end_attempts,
    idempotency_key,
    is_sent_by_us,
    latest_attempts,
    record_bank_findings,
)
from seedtrust_ops.domain.transfers.bank_feed import has_missing_transfers, open_missing_transfer_alerts
from seedtrust_ops.domain.transfers.batch_lifecycle import finish_batches, lock_batches, requeue_batches
from seedtrust_ops.domain.transfers.leases import Lease, has_live_lease, lock_lease
from seedtrust_ops.domain.transfers.legacy_takeover import (
    LegacyTransaction,
    is_false_failure,
    is_held_by_legacy_worker,
    match_by_reference,
    require_bank_inquiry,
)
from seedtrust_ops.domain.transfers.status_transitions import StatusChange, apply_bank_statuses
from seedtrust_ops.ports.bank import LOOKUP_PAGE_SIZE, Bank, BankInquiryFailed, BankTransfer
from seedtrust_ops.tables import BatchLease, HuntingtonBatch, HuntingtonTransaction, TransferAttempt

MAX_UNANSWERED_PAGES = 3
"""After this many pages without a response, the rest waits for the next run: the bank is considered down."""


@dataclass(frozen=True)
class OpenTransaction:
    """A transaction awaiting bank status; `is_sent_by_us` if we ever tried to send it under our key."""

    id: int
    batch_id: int
    status: str
    amount_cents: int
    bank_transfer_id: str | None
    is_sent_by_us: bool


@dataclass
class InquiryResult:
    """The results of a status inquiry."""

    looked_up: int = 0
    changes: list[StatusChange] = field(default_factory=list)
    requeued_transactions: list[int] = field(default_factory=list)
    """Transactions that the bank does not know; they are `pending` again."""
    requeued_batches: list[int] = field(default_factory=list)
    finished: dict[int, str] = field(default_factory=dict)
    unanswered: list[BankInquiryFailed] = field(default_factory=list)
    """One error for each page of lookups without a response; the next auto-heal run repeats them."""

    def add(self, other: "InquiryResult") -> None:
        """Add the results of another page."""
        self.changes += other.changes
        self.requeued_transactions += other.requeued_transactions
        self.requeued_batches += other.requeued_batches
        self.finished |= other.finished


def is_open() -> ColumnElement[bool]:
    """Return the SQL condition that a transaction is awaiting bank status and no worker is on it."""
    return or_(
        and_(HuntingtonTransaction.status == "processing", ~has_live_lease(HuntingtonTransaction.batch_id)),
        HuntingtonTransaction.status == "submitted",
        is_false_failure(HuntingtonTransaction),
    )


def _is_in_scope(lease: Lease | None) -> ColumnElement[bool]:
    if lease is None:
        return is_open()
    return and_(HuntingtonTransaction.batch_id == lease.batch_id, HuntingtonTransaction.status == "processing")


async def look_up_open_transactions(
    sessions: Sessions, bank: Bank, *, unknown_grace_seconds: float, lease: Lease | None = None
) -> InquiryResult:
    """Look up the open transactions at the bank, in pages, and record their statuses.

    Args:
        sessions: the application's database.
        bank: the bank.
        unknown_grace_seconds: how long after its last attempt a key must be unknown to the bank before the
            transaction goes back to `pending`.
        lease: a worker's lease on one batch, to look up that batch only. Without it, all batches are looked up,
            and batches with transactions that went back to `pending` are requeued.

    Raises:
        BankUnauthorized: if the bank does not accept our API key.
    """
    result = InquiryResult()
    after = 0
    while page := await asyncio.to_thread(_next_page, sessions, after, lease):
        after = page.transactions[-1].id
        result.looked_up += len(page.transactions)
        try:
            transfers, ambiguous = await _query_bank(sessions, bank, page.transactions)
        except BankInquiryFailed as error:
            result.unanswered.append(error)
            if len(result.unanswered) >= MAX_UNANSWERED_PAGES:
                break
            continue
        recorder = _PageRecorder(page, transfers, ambiguous, unknown_grace_seconds, lease)
        result.add(await asyncio.to_thread(run_in_transaction, sessions, recorder.record))
    return result


@dataclass(frozen=True)
class _Page:
    """Open transactions, and when they were read (UTC, database clock), which is before the bank was asked."""

    transactions: list[OpenTransaction]
    read_at: datetime


def _next_page(sessions: Sessions, after: int, lease: Lease | None) -> _Page | None:
    query = (
        select(
            HuntingtonTransaction.id,
            HuntingtonTransaction.batch_id,
            HuntingtonTransaction.status,
            HuntingtonTransaction.amount_cents,
            HuntingtonTransaction.bank_transfer_id,
            is_sent_by_us(),
        )
        .where(HuntingtonTransaction.id > after, _is_in_scope(lease))
        .order_by(HuntingtonTransaction.id)
        .limit(LOOKUP_PAGE_SIZE)
    )
    with sessions() as session:
        read_at = session.scalars(select(func.clock_timestamp())).one()
        transactions = [OpenTransaction(*row) for row in session.execute(query)]
    return _Page(transactions, read_at) if transactions else None


async def _query_bank(
    sessions: Sessions, bank: Bank, page: Sequence[OpenTransaction]
) -> tuple[dict[int, BankTransfer], set[int]]:
    """Return the bank's transfers by transaction id, and the ids of ambiguous transactions."""
    by_key = {idempotency_key(one.id): one.id for one in page}
    transfers = {by_key[transfer.idempotency_key]: transfer for transfer in await bank.find_by_keys(list(by_key))}
    # A submitted transaction that we sent is never resent, so no further lookup is needed.
    missing = [one for one in page if one.id not in transfers and not (one.is_sent_by_us and one.status == "submitted")]
    found, ambiguous = await match_by_reference(
        sessions,
        bank,
        [LegacyTransaction(one.id, one.amount_cents, one.bank_transfer_id, one.is_sent_by_us) for one in missing],
    )
    return transfers | found, ambiguous


@dataclass(frozen=True)
class _PageRecorder:
    """Records the bank's statuses of one page of open transactions, in one database transaction."""

    page: _Page
    transfers: Mapping[int, BankTransfer]
    ambiguous: set[int]
    grace_seconds: float
    lease: Lease | None

    def record(self, session: Session) -> InquiryResult:
        lock_batches(session, {one.batch_id for one in self.page.transactions})
        if self.lease is not None:
            lock_lease(session, self.lease)
        result = InquiryResult(changes=apply_bank_statuses(session, self.transfers))
        record_bank_findings(
            session, {change.transaction_id: change.transfer for change in result.changes}, "seen in a status inquiry"
        )
        unknown = {
            one.id: one
            for one in self.page.transactions
            if one.id not in self.transfers and one.id not in self.ambiguous
        }
        open_missing_transfer_alerts(
            session, {one.id: one.status for one in unknown.values() if one.status == "submitted"}
        )
        # A bank that has lost transfers which it had accepted may have lost these too.
        result.requeued_transactions = [] if has_missing_transfers(session) else self._requeue_unknown(session, unknown)
        attempts = latest_attempts(session, result.requeued_transactions)
        end_attempts(
            session,
            [
                AttemptEnd(attempt, AttemptOutcome.UNKNOWN_TO_BANK, detail="the bank does not know the key")
                for attempt in attempts.values()
            ],
        )
        if self.lease is None:
            result.requeued_batches = requeue_batches(
                session, {unknown[one].batch_id for one in result.requeued_transactions}
            )
            result.finished = finish_batches(session, {change.batch_id for change in result.changes})
        return result

    def _requeue_unknown(self, session: Session, unknown: Mapping[int, OpenTransaction]) -> list[int]:
        """Set transactions back to `pending` that the bank does not know after the grace period."""
        last_attempt = (
            select(func.max(TransferAttempt.started_at))
            .where(TransferAttempt.transaction_id == HuntingtonTransaction.id)
            .scalar_subquery()
        )
        due = (
            select(HuntingtonTransaction.id)
            .where(
                HuntingtonTransaction.id.in_(unknown),
                _is_in_scope(self.lease),
                HuntingtonTransaction.status != "submitted",
                func.coalesce(last_attempt, HuntingtonTransaction.updated_at)
                <= self.page.read_at - timedelta(seconds=self.grace_seconds),
            )
            .order_by(HuntingtonTransaction.id)
            .with_for_update()
        )
        if self.lease is None:
            due = due.where(
                ~has_live_lease(HuntingtonTransaction.batch_id),
                # The worker that has the batch may be sending this transaction.
                ~exists().where(HuntingtonBatch.id == HuntingtonTransaction.batch_id, is_held_by_legacy_worker()),
            )
        ids = list(session.scalars(due))
        if ids:
            self._require_inquiry_for_the_rest(session, {unknown[one].batch_id for one in ids})
            session.execute(
                update(HuntingtonTransaction)
                .where(HuntingtonTransaction.id.in_(ids))
                .values(status="pending", failure_reason=None, updated_at=func.clock_timestamp())
            )
        return ids

    def _require_inquiry_for_the_rest(self, session: Session, batch_ids: Collection[int]) -> None:
        """Require an inquiry for pending transactions of batches that our workers never had; they may be sent."""
        leased = set(session.scalars(select(BatchLease.batch_id).where(in_array(BatchLease.batch_id, batch_ids))))
        require_bank_inquiry(session, set(batch_ids) - leased)
