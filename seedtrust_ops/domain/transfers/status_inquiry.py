"""Looks up the status of every open transaction at the bank, and records it.

Open is whatever may still move money by evidence, `processing` without a worker, `submitted`, or a failure that only
the legacy worker reports. A worker that takes over a batch looks up that batch only; auto-heal looks up all of them.
See docs/decisions/unknown-outcomes.md.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, CompoundSelect, Select, and_, exists, false, func, or_, select, union, update
from sqlalchemy.orm import Session, aliased

from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.row_failures import RowByRow, RowFailure
from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.domain.transfers.attempts import (
    AttemptEnd,
    AttemptOutcome,
    end_attempts,
    idempotency_key,
    is_sent_by_us,
    latest_attempts,
    open_undeliverable_alert,
    record_bank_findings,
    undeliverable,
)
from seedtrust_ops.domain.transfers.bank_feed import has_missing_transfers, open_missing_transfer_alerts
from seedtrust_ops.domain.transfers.batch_lifecycle import finish_batches, lock_batches, requeue_batches
from seedtrust_ops.domain.transfers.evidence import (
    State,
    ensure_evidence,
    has_evidence,
    is_in_flight,
    needs_inquiry,
    record_missing,
    record_unknown_to_bank,
    require_inquiry_of_sent,
)
from seedtrust_ops.domain.transfers.leases import Lease, WasCanceledByPerson, has_live_lease, lock_lease
from seedtrust_ops.domain.transfers.legacy_takeover import (
    LegacyTransaction,
    is_false_failure,
    is_held_by_legacy_worker,
    is_inquiry_due,
    is_unproven_failure,
    match_by_reference,
    record_legacy_inquiries,
    require_bank_inquiry,
    was_begun_before_cutover,
)
from seedtrust_ops.domain.transfers.status_transitions import StatusChange, apply_bank_statuses
from seedtrust_ops.domain.transfers.unreadable_transfers import (
    find_unreadable,
    record_unreadable,
    require_own_references,
    resolve_readable,
)
from seedtrust_ops.ports.bank import LOOKUP_PAGE_SIZE, Bank, BankInquiryFailed, BankTransfer, UnreadableTransfer
from seedtrust_ops.tables import BatchLease, HuntingtonBatch, HuntingtonTransaction, TransferAttempt, TransferEvidence

MAX_UNANSWERED_PAGES = 3
"""After this many pages without a response, the rest waits for the next run: the bank is considered down."""


@dataclass(frozen=True)
class OpenTransaction:
    """A transaction to ask the bank about; batch and status are None if somebody has deleted it.

    `bank_transfer_id` is set if the bank has or had its transfer, `is_sent_by_us` if we ever tried to send it under our
    key, and `may_be_legacy` if the legacy worker may have begun it. `is_unproven_failure` is set if only the legacy
    worker says that it failed, and not because of a timeout.
    """

    id: int
    batch_id: int | None
    status: str | None
    amount_cents: int
    bank_transfer_id: str | None
    is_sent_by_us: bool
    may_be_legacy: bool
    is_unproven_failure: bool

    @property
    def was_at_the_bank(self) -> bool:
        """Whether the bank has reported its transfer before; of what we sent, evidence says so and not the status."""
        return self.bank_transfer_id is not None or (self.status == "submitted" and not self.is_sent_by_us)


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
    unrecorded: dict[int, RowFailure] = field(default_factory=dict)
    """Why nothing could be recorded for a transaction, by its id; the next auto-heal run repeats its lookup."""

    def add(self, other: "InquiryResult") -> None:
        """Add the results of another page."""
        self.changes += other.changes
        self.requeued_transactions += other.requeued_transactions
        self.requeued_batches += other.requeued_batches
        self.finished |= other.finished


def open_transaction_ids(lease: Lease | None = None) -> Select[int] | CompoundSelect[int]:
    """Return the query for the transactions that the bank must be asked about: of all batches, or of one lease's.

    Those of all batches are found twice: by their status, which includes what the legacy worker sent, and by evidence,
    which includes what a person has changed or deleted. Once a key that the bank does not know blocks nothing any more,
    only the feed listens for it.
    """
    transaction, evidence = HuntingtonTransaction, TransferEvidence
    if lease is not None:
        return select(transaction.id).where(transaction.batch_id == lease.batch_id, transaction.status == "processing")
    is_with_a_worker = and_(transaction.status.in_(("pending", "processing")), has_live_lease(transaction.batch_id))
    by_status = or_(
        and_(transaction.status == "processing", ~has_live_lease(transaction.batch_id)),
        transaction.status == "submitted",
        is_false_failure(transaction),
        is_inquiry_due(),
        # A person has overwritten what the bank has completed.
        and_(transaction.status.in_(("failed", "returned")), has_evidence().where(evidence.state == State.MOVED.value)),
    )
    return union(
        select(transaction.id).where(by_status),
        select(evidence.transaction_id)
        .outerjoin(transaction, transaction.id == evidence.transaction_id)
        .where(
            needs_inquiry(),
            or_(is_in_flight(), evidence.missing_since.is_not(None)),
            or_(transaction.id.is_(None), ~is_with_a_worker),
        ),
    )


async def look_up_open_transactions(
    sessions: Sessions,
    bank: Bank,
    *,
    unknown_grace_seconds: float,
    was_canceled_by_person: WasCanceledByPerson,
    lease: Lease | None = None,
) -> InquiryResult:
    """Look up the open transactions at the bank, in pages, and record their statuses.

    Args:
        sessions: the application's database.
        bank: the bank.
        unknown_grace_seconds: how long after its last attempt a key must be unknown to the bank before the
            transaction goes back to `pending`.
        was_canceled_by_person: asked about the last run of a batch that would be requeued.
        lease: a worker's lease on one batch, to look up that batch only. Without it, all batches are looked up,
            and batches with transactions that went back to `pending` are requeued.

    Raises:
        BankUnauthorized: if the bank does not accept our API key.
    """
    if lease is not None:
        await asyncio.to_thread(run_in_transaction, sessions, lambda session: _require_inquiry_of_sent(session, lease))
    result = InquiryResult()
    rows = RowByRow(sessions, lambda session: _lock_batch(session, lease))
    after = 0
    while page := await asyncio.to_thread(_next_page, sessions, after, lease):
        after = page.transactions[-1].id
        result.looked_up += len(page.transactions)
        try:
            transfers, ambiguous, unreadable = await _query_bank(sessions, bank, page.transactions)
        except BankInquiryFailed as error:
            result.unanswered.append(error)
            if len(result.unanswered) >= MAX_UNANSWERED_PAGES:
                break
            continue
        recorder = _PageRecorder(
            page, transfers, ambiguous, unreadable, unknown_grace_seconds, was_canceled_by_person, lease
        )
        for part in await asyncio.to_thread(rows.write, [one.id for one in page.transactions], recorder.record):
            result.add(part)
    result.unrecorded = rows.failures
    return result


def _lock_batch(session: Session, lease: Lease | None) -> None:
    if lease is not None:
        lock_batches(session, [lease.batch_id])
        lock_lease(session, lease)


def _require_inquiry_of_sent(session: Session, lease: Lease) -> None:
    lock_lease(session, lease)
    require_inquiry_of_sent(session, lease.batch_id)


@dataclass(frozen=True)
class _Page:
    """Open transactions, and when they were read (UTC, database clock), which is before the bank was asked."""

    transactions: list[OpenTransaction]
    read_at: datetime


def _next_page(sessions: Sessions, after: int, lease: Lease | None) -> _Page | None:
    ids = open_transaction_ids(lease).subquery("open")
    query = (
        select(
            ids.c.id,
            HuntingtonTransaction.batch_id,
            HuntingtonTransaction.status,
            func.coalesce(TransferEvidence.amount_cents, HuntingtonTransaction.amount_cents),
            func.coalesce(TransferEvidence.bank_transfer_id, HuntingtonTransaction.bank_transfer_id),
            is_sent_by_us(ids.c.id),
            was_begun_before_cutover(),
            func.coalesce(
                and_(is_unproven_failure(), ~func.coalesce(is_false_failure(HuntingtonTransaction), false())), false()
            ),
        )
        .outerjoin(HuntingtonTransaction, HuntingtonTransaction.id == ids.c.id)
        .outerjoin(HuntingtonBatch, HuntingtonBatch.id == HuntingtonTransaction.batch_id)
        .outerjoin(TransferEvidence, TransferEvidence.transaction_id == ids.c.id)
        .where(ids.c.id > after)
        .order_by(ids.c.id)
        .limit(LOOKUP_PAGE_SIZE)
    )
    with sessions() as session:
        read_at = session.scalars(select(func.clock_timestamp())).one()
        transactions = [OpenTransaction(*row) for row in session.execute(query)]
    return _Page(transactions, read_at) if transactions else None


async def _query_bank(
    sessions: Sessions, bank: Bank, page: Sequence[OpenTransaction]
) -> tuple[dict[int, BankTransfer], set[int], list[UnreadableTransfer]]:
    """Return the bank's transfers by transaction id, the ids of ambiguous transactions, and unreadable transfers.

    Transactions whose transfer cannot be read count as ambiguous: the bank has something.
    """
    by_key = {idempotency_key(one.id): one.id for one in page}
    answer = require_own_references(await bank.find_by_keys(list(by_key)))
    unreadable = {by_key[one.idempotency_key] for one in answer.unreadable if one.idempotency_key is not None}
    transfers = {by_key[transfer.idempotency_key]: transfer for transfer in answer.readable}
    transfers = {one: transfer for one, transfer in transfers.items() if one not in unreadable}
    # What we sent and the bank had is never resent, so no further lookup is needed.
    missing = [
        one
        for one in page
        if one.id not in transfers and one.id not in unreadable and not (one.is_sent_by_us and one.was_at_the_bank)
    ]
    found, ambiguous = await match_by_reference(
        sessions,
        bank,
        [
            LegacyTransaction(one.id, one.amount_cents, one.bank_transfer_id, one.is_sent_by_us, one.may_be_legacy)
            for one in missing
        ],
    )
    return transfers | found, ambiguous | unreadable, answer.unreadable


@dataclass(frozen=True)
class _PageRecorder:
    """Records the bank's statuses of one page of open transactions, or of some of them."""

    page: _Page
    transfers: Mapping[int, BankTransfer]
    ambiguous: set[int]
    unreadable: list[UnreadableTransfer]
    grace_seconds: float
    was_canceled_by_person: WasCanceledByPerson
    lease: Lease | None

    def record(self, session: Session, transaction_ids: Collection[int]) -> InquiryResult:
        """Record the statuses of these transactions of the page, in one database transaction."""
        some = [one for one in self.page.transactions if one.id in set(transaction_ids)]
        keys = {idempotency_key(one.id) for one in some}
        recorder = replace(
            self,
            page=replace(self.page, transactions=some),
            transfers={one.id: self.transfers[one.id] for one in some if one.id in self.transfers},
            unreadable=[one for one in self.unreadable if one.idempotency_key in keys],
        )
        return recorder._record(session)

    def _record(self, session: Session) -> InquiryResult:
        lock_batches(session, {one.batch_id for one in self.page.transactions if one.batch_id is not None})
        if self.lease is not None:
            lock_lease(session, self.lease)
        in_doubt = find_unreadable(session, {one.id for one in self.page.transactions})
        known = self.transfers.keys() | self.ambiguous | in_doubt
        unproven = {one.id for one in self.page.transactions if one.is_unproven_failure and one.id not in known}
        record_legacy_inquiries(session, unproven)
        ensure_evidence(session, [one.id for one in self.page.transactions if one.id not in unproven])
        result = InquiryResult(changes=apply_bank_statuses(session, self.transfers))
        record_bank_findings(
            session, {change.transaction_id: change.transfer for change in result.changes}, "seen in a status inquiry"
        )
        unknown = {one.id: one for one in self.page.transactions if one.id not in known and one.id not in unproven}
        missing = [one.id for one in unknown.values() if one.was_at_the_bank]
        open_missing_transfer_alerts(session, record_missing(session, missing, self.page.read_at, self.grace_seconds))
        # A bank that does not find transfers which it had accepted may not find these either.
        if not has_missing_transfers(session):
            never_seen = {one.id: one for one in unknown.values() if not one.was_at_the_bank}
            result.requeued_transactions = self._record_unknown(session, never_seen)
        if self.lease is None:
            batches = {unknown[one].batch_id for one in result.requeued_transactions}
            result.requeued_batches = requeue_batches(
                session, {one for one in batches if one is not None}, self.was_canceled_by_person
            )
            result.finished = finish_batches(session, {change.batch_id for change in result.changes})
        record_unreadable(session, self.unreadable)
        resolve_readable(session, self.transfers.values())
        return result

    def _record_unknown(self, session: Session, unknown: Mapping[int, OpenTransaction]) -> list[int]:
        """Record the keys that the bank does not know after the grace period; return the transactions to send again.

        Those are `pending` again. What a person has failed or deleted stays so, and is not sent again.
        """
        last_attempt = (
            select(func.max(TransferAttempt.started_at))
            .where(TransferAttempt.transaction_id == TransferEvidence.transaction_id)
            .scalar_subquery()
        )
        due = (
            select(TransferEvidence.transaction_id, _is_to_send_again().label("is_to_send_again"))
            .outerjoin(HuntingtonTransaction, HuntingtonTransaction.id == TransferEvidence.transaction_id)
            .where(
                in_array(TransferEvidence.transaction_id, unknown),
                TransferEvidence.transaction_id.in_(open_transaction_ids(self.lease)),
                TransferEvidence.state.in_((State.IN_FLIGHT.value, State.NOT_MOVED.value)),
                or_(_is_to_send_again(), TransferEvidence.unknown_to_bank_at.is_(None)),
                func.coalesce(last_attempt, HuntingtonTransaction.updated_at, TransferEvidence.changed_at)
                <= self.page.read_at - timedelta(seconds=self.grace_seconds),
            )
            .order_by(TransferEvidence.transaction_id)
            .with_for_update(of=TransferEvidence)
        )
        if self.lease is None:
            due = due.where(
                # The worker that has the batch may be sending this transaction.
                or_(
                    HuntingtonTransaction.id.is_(None),
                    and_(
                        ~has_live_lease(HuntingtonTransaction.batch_id),
                        ~exists().where(
                            HuntingtonBatch.id == HuntingtonTransaction.batch_id, is_held_by_legacy_worker()
                        ),
                    ),
                ),
            )
        rows = session.execute(due).all()
        undeliverable_ids = undeliverable(session, [row.transaction_id for row in rows if row.is_to_send_again])
        for one in undeliverable_ids:
            open_undeliverable_alert(session, one)
        ended = [row.transaction_id for row in rows if row.transaction_id not in undeliverable_ids]
        end_attempts(
            session,
            [
                AttemptEnd(attempt, AttemptOutcome.UNKNOWN_TO_BANK, detail="the bank does not know the key")
                for attempt in latest_attempts(session, ended).values()
            ],
        )
        record_unknown_to_bank(session, ended)
        requeued = [row.transaction_id for row in rows if row.is_to_send_again and row.transaction_id in ended]
        return self._set_pending(session, requeued, unknown)

    def _set_pending(
        self, session: Session, transaction_ids: Sequence[int], unknown: Mapping[int, OpenTransaction]
    ) -> list[int]:
        locked = select(HuntingtonTransaction.id).where(
            in_array(HuntingtonTransaction.id, transaction_ids), _is_to_send_again()
        )
        ids = list(session.scalars(locked.order_by(HuntingtonTransaction.id).with_for_update()))
        if ids:
            batches = {unknown[one].batch_id for one in ids}
            self._require_inquiry_for_the_rest(session, {one for one in batches if one is not None})
            session.execute(
                update(HuntingtonTransaction)
                .where(in_array(HuntingtonTransaction.id, ids))
                .values(status="pending", failure_reason=None, updated_at=func.clock_timestamp())
            )
        return ids

    def _require_inquiry_for_the_rest(self, session: Session, batch_ids: Collection[int]) -> None:
        """Require an inquiry for pending transactions of batches that our workers never had; they may be sent."""
        leased = set(session.scalars(select(BatchLease.batch_id).where(in_array(BatchLease.batch_id, batch_ids))))
        require_bank_inquiry(session, set(batch_ids) - leased)


def _is_to_send_again() -> ColumnElement[bool]:
    """Return the SQL condition that a transaction goes back to `pending` if the bank does not know its key.

    `submitted` is what a person wrote if we sent the transfer and the bank never had it.
    """
    evidence = aliased(TransferEvidence)
    never_had_it = exists().where(
        evidence.transaction_id == HuntingtonTransaction.id, evidence.bank_transfer_id.is_(None)
    )
    return func.coalesce(
        or_(
            HuntingtonTransaction.status == "processing",
            and_(HuntingtonTransaction.status == "submitted", is_sent_by_us(HuntingtonTransaction.id), never_had_it),
            is_false_failure(HuntingtonTransaction),
        ),
        false(),
    )
