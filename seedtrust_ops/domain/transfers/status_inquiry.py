"""Asks the bank about every transaction whose truth is open, and records what it says.

Open are: `processing` with no worker on it, `submitted`, and the legacy worker's false failures. A worker
that takes a batch over asks about that batch alone; auto-heal asks about all.
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
    Outcome,
    end_attempts,
    found_at_bank,
    last_attempts,
)
from seedtrust_ops.domain.transfers.batch_claim import is_left_by_another, require_bank_inquiry
from seedtrust_ops.domain.transfers.batch_lifecycle import finish_batches, requeue_batches
from seedtrust_ops.domain.transfers.idempotency_keys import idempotency_key
from seedtrust_ops.domain.transfers.leases import Lease, is_live, lock_lease
from seedtrust_ops.domain.transfers.legacy_matching import LegacyTransaction, match_by_reference
from seedtrust_ops.domain.transfers.missing_at_bank import bank_has_forgotten, tell_of_forgotten
from seedtrust_ops.domain.transfers.preflight import is_false_failure
from seedtrust_ops.domain.transfers.status_transitions import Change, apply_bank_statuses
from seedtrust_ops.ports.bank import LOOK_UP_PAGE, Bank, BankInquiryFailed, BankTransfer
from seedtrust_ops.tables import BatchLease, HuntingtonBatch, HuntingtonTransaction, TransferAttempt

SILENT_PAGES = 3
"""After so many pages of questions without an answer the rest waits for the next healing: the bank is down."""


@dataclass(frozen=True)
class OpenTransaction:
    """A transaction whose truth is open; `ours` where we ever tried to send it under our key."""

    id: int
    batch_id: int
    status: str
    amount_cents: int
    bank_transfer_id: str | None
    ours: bool


@dataclass
class Findings:
    """What asking the bank came to."""

    asked: int = 0
    changes: list[Change] = field(default_factory=list)
    put_back: list[int] = field(default_factory=list)
    """Transactions that the bank does not know and that are pending again."""
    requeued: list[int] = field(default_factory=list)
    finished: dict[int, str] = field(default_factory=dict)
    unanswered: list[BankInquiryFailed] = field(default_factory=list)
    """One for each page of questions that got no answer; the next heal asks again."""

    def add(self, other: "Findings") -> None:
        """Add what another page of questions came to."""
        self.changes += other.changes
        self.put_back += other.put_back
        self.requeued += other.requeued
        self.finished |= other.finished


def is_open() -> ColumnElement[bool]:
    """The condition that a transaction's truth is open and no worker is on it."""
    leased = exists().where(BatchLease.batch_id == HuntingtonTransaction.batch_id, is_live())
    return or_(
        and_(HuntingtonTransaction.status == "processing", ~leased),
        HuntingtonTransaction.status == "submitted",
        is_false_failure(HuntingtonTransaction),
    )


def _asked_about(lease: Lease | None) -> ColumnElement[bool]:
    if lease is None:
        return is_open()
    return and_(HuntingtonTransaction.batch_id == lease.batch_id, HuntingtonTransaction.status == "processing")


async def ask_about_open_transactions(
    sessions: Sessions, bank: Bank, *, unknown_grace_seconds: float, lease: Lease | None = None
) -> Findings:
    """Ask the bank about the open transactions, in pages, and record what it says.

    Args:
        sessions: the application's database.
        bank: the bank.
        unknown_grace_seconds: how long after its last attempt a key must be unknown to the bank before the
            transaction goes back to `pending`.
        lease: a worker's lease on one batch, to ask about that batch alone. Without it all batches are asked
            about, and batches with transactions gone back to pending are queued.

    Raises:
        BankUnauthorized: when the bank refuses our API key.
    """
    findings = Findings()
    after = 0
    while page := await asyncio.to_thread(_next_page, sessions, after, lease):
        after = page.transactions[-1].id
        findings.asked += len(page.transactions)
        try:
            words, doubtful = await _ask(sessions, bank, page.transactions)
        except BankInquiryFailed as silence:
            findings.unanswered.append(silence)
            if len(findings.unanswered) >= SILENT_PAGES:
                break
            continue
        recording = _Recording(page, words, doubtful, unknown_grace_seconds, lease)
        findings.add(await asyncio.to_thread(run_in_transaction, sessions, recording.record))
    return findings


@dataclass(frozen=True)
class _Page:
    """Open transactions, and when they were read (UTC, the database's clock): before the bank was asked."""

    transactions: list[OpenTransaction]
    read_at: datetime


def _next_page(sessions: Sessions, after: int, lease: Lease | None) -> _Page | None:
    ours = exists().where(TransferAttempt.transaction_id == HuntingtonTransaction.id, TransferAttempt.attempt > 0)
    query = (
        select(
            HuntingtonTransaction.id,
            HuntingtonTransaction.batch_id,
            HuntingtonTransaction.status,
            HuntingtonTransaction.amount_cents,
            HuntingtonTransaction.bank_transfer_id,
            ours,
        )
        .where(HuntingtonTransaction.id > after, _asked_about(lease))
        .order_by(HuntingtonTransaction.id)
        .limit(LOOK_UP_PAGE)
    )
    with sessions() as session:
        read_at = session.scalars(select(func.clock_timestamp())).one()
        transactions = [OpenTransaction(*row) for row in session.execute(query)]
    return _Page(transactions, read_at) if transactions else None


async def _ask(
    sessions: Sessions, bank: Bank, page: Sequence[OpenTransaction]
) -> tuple[dict[int, BankTransfer], set[int]]:
    """Return what the bank says, by transaction id, and the transactions about which nobody may guess."""
    by_key = {idempotency_key(one.id): one.id for one in page}
    words = {by_key[transfer.idempotency_key]: transfer for transfer in await bank.find_by_keys(list(by_key))}
    # What is submitted is never sent again, so that nobody need look further for it.
    lost = [one for one in page if one.id not in words and not (one.ours and one.status == "submitted")]
    found, doubtful = await match_by_reference(
        sessions, bank, [LegacyTransaction(one.id, one.amount_cents, one.bank_transfer_id, one.ours) for one in lost]
    )
    return words | found, doubtful


@dataclass(frozen=True)
class _Recording:
    """Records what the bank said of one page of open transactions, in one transaction."""

    page: _Page
    words: Mapping[int, BankTransfer]
    doubtful: set[int]
    grace_seconds: float
    lease: Lease | None

    def record(self, session: Session) -> Findings:
        # Batches first, in the order of their ids, as everywhere: a claim waits until this is committed, or
        # this sees the claim's lease.
        batch_ids = sorted({one.batch_id for one in self.page.transactions})
        session.execute(
            select(HuntingtonBatch.id)
            .where(HuntingtonBatch.id.in_(batch_ids))
            .order_by(HuntingtonBatch.id)
            .with_for_update()
        )
        if self.lease is not None:
            lock_lease(session, self.lease)
        findings = Findings(changes=apply_bank_statuses(session, self.words))
        found_at_bank(
            session, {change.transaction_id: change.transfer for change in findings.changes}, "the bank was asked"
        )
        unknown = {
            one.id: one for one in self.page.transactions if one.id not in self.words and one.id not in self.doubtful
        }
        tell_of_forgotten(session, {one.id: one.status for one in unknown.values() if one.status == "submitted"})
        # A bank that has forgotten transfers which it had taken may have forgotten these too.
        findings.put_back = [] if bank_has_forgotten(session) else self._put_back(session, unknown)
        attempts = last_attempts(session, findings.put_back)
        end_attempts(
            session,
            [
                AttemptEnd(attempt, Outcome.UNKNOWN_TO_BANK, detail="the bank does not know the key")
                for attempt in attempts.values()
            ],
        )
        if self.lease is None:
            findings.requeued = requeue_batches(session, {unknown[one].batch_id for one in findings.put_back})
            findings.finished = finish_batches(session, {change.batch_id for change in findings.changes})
        return findings

    def _put_back(self, session: Session, unknown: Mapping[int, OpenTransaction]) -> list[int]:
        """Set transactions back to `pending` that the bank does not know although the grace time is over."""
        last_attempt = (
            select(func.max(TransferAttempt.started_at))
            .where(TransferAttempt.transaction_id == HuntingtonTransaction.id)
            .scalar_subquery()
        )
        due = (
            select(HuntingtonTransaction.id)
            .where(
                HuntingtonTransaction.id.in_(unknown),
                _asked_about(self.lease),
                HuntingtonTransaction.status != "submitted",
                func.coalesce(last_attempt, HuntingtonTransaction.updated_at)
                <= self.page.read_at - timedelta(seconds=self.grace_seconds),
            )
            .order_by(HuntingtonTransaction.id)
            .with_for_update()
        )
        if self.lease is None:
            due = due.where(
                ~exists().where(BatchLease.batch_id == HuntingtonTransaction.batch_id, is_live()),
                # Whoever has the batch may be sending this one.
                ~exists().where(HuntingtonBatch.id == HuntingtonTransaction.batch_id, is_left_by_another()),
            )
        ids = list(session.scalars(due))
        if ids:
            self._doubt_the_rest(session, {unknown[one].batch_id for one in ids})
            session.execute(
                update(HuntingtonTransaction)
                .where(HuntingtonTransaction.id.in_(ids))
                .values(status="pending", failure_reason=None, updated_at=func.clock_timestamp())
            )
        return ids

    def _doubt_the_rest(self, session: Session, batch_ids: Collection[int]) -> None:
        """Doubt what is pending in batches that no worker of ours ever had: nobody knows whether it was sent."""
        known = set(session.scalars(select(BatchLease.batch_id).where(in_array(BatchLease.batch_id, batch_ids))))
        require_bank_inquiry(session, set(batch_ids) - known)
