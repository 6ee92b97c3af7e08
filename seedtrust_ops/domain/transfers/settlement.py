"""Settles a transfer by a person's decision: status, ledger, balance and request in one transaction.

It is for what the bank cannot or does not say clearly. The bank is asked first, and a later answer of the bank that is
newer than the one seen here takes precedence again (`evidence.record_answers`).
See docs/decisions/settlement.md.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sqlalchemy import Text, func, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import resolve_all_of
from seedtrust_ops.domain.async_runner import run_in_loop
from seedtrust_ops.domain.outbox import Email, enqueue_emails
from seedtrust_ops.domain.outbox.recipients import alert_nobody_to_notify
from seedtrust_ops.domain.transfers.attempts import (
    AttemptEnd,
    AttemptOutcome,
    StartedAttempt,
    end_attempts,
    idempotency_key,
    latest_attempts,
)
from seedtrust_ops.domain.transfers.batch_lifecycle import finish_batches, lock_batches
from seedtrust_ops.domain.transfers.evidence import State
from seedtrust_ops.domain.transfers.leases import has_live_lease
from seedtrust_ops.domain.transfers.ledger_posting import (
    correct_entries,
    post_disbursements,
    post_reversals,
    restore_requests,
)
from seedtrust_ops.domain.transfers.status_transitions import STATUS_BY_BANK_STATUS, open_amount_alert
from seedtrust_ops.domain.transfers.unknown_transfers import explain_by_settlement
from seedtrust_ops.domain.transfers.unreadable_transfers import require_own_references
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.formatting import format_dollars, single_line
from seedtrust_ops.ports.bank import BankStatus, BankTransfer, BankTransfers, OpenBank, UnreadableTransfer
from seedtrust_ops.tables import (
    BatchLease,
    HuntingtonTransaction,
    TransferAttempt,
    TransferEvidence,
    User,
)

SETTLED_RULES = (
    "bank_contradicts_itself",
    "idempotency_key_reused",
    "transfer_ambiguous",
    "transfer_forgotten_by_bank",
    "transfer_not_booked",
    "transfer_undeliverable",
)
"""The alerts about a transaction that settling it resolves; older releases opened `transfer_not_booked`."""


class SettleAs(StrEnum):
    """What a person can settle a transfer as."""

    COMPLETED = "completed"
    FAILED = "failed"
    RETURNED = "returned"


class UnknownTransaction(SeedTrustError):
    """No transaction has this id, or it was never sent."""


class SettlementRefused(SeedTrustError):
    """The transfer may not be settled as asked; the message says why."""


@dataclass(frozen=True)
class Settlement:
    """A person's decision; `unknown_grace_seconds` is how long a request may be on its way to the bank."""

    transaction_id: int
    settle_as: SettleAs
    reason: str
    by: str
    contradict_bank: bool = False
    unknown_grace_seconds: float = 600


@dataclass(frozen=True)
class SettlementReport:
    """What settling changed; amounts in cents."""

    transaction_id: int
    before: str
    after: str
    bank_status: str | None
    correction_cents: int
    request_id: int | None
    admins_notified: int


def ask_bank(
    open_bank: OpenBank, transaction_id: int, bank_transfer_id: str | None, *, foreign_ids: Collection[str] = ()
) -> BankTransfer | UnreadableTransfer | None:
    """Return the bank's transfer of a transaction, by its key and then by its reference, or None if it knows none.

    If it has one that cannot be read, return that one. `foreign_ids` are transfers of the bank that a person has
    explained as something else.

    Raises:
        BankInquiryFailed, BankUnauthorized: from the bank.
        SettlementRefused: if the bank has several transfers with the transaction's reference.
    """

    async def ask() -> BankTransfers:
        async with open_bank() as bank:
            by_key = require_own_references(await bank.find_by_keys([idempotency_key(transaction_id)]))
            return by_key if by_key != BankTransfers() else await bank.find_by_references([str(transaction_id)])

    answer = run_in_loop(ask)
    if answer.unreadable:
        return answer.unreadable[0]
    found = {transfer.id: transfer for transfer in answer.readable if transfer.id not in foreign_ids}
    if bank_transfer_id in found:
        return found[bank_transfer_id]
    if len(found) > 1:
        listed = ", ".join(f"{one.id} ({format_dollars(one.amount_cents)}, {one.status})" for one in found.values())
        raise SettlementRefused(
            f"The bank has several transfers with the reference of transaction {transaction_id}: {listed}. Nothing was "
            "changed. Find out with Huntington which one is ours, and run `seedtrust-ops transfers explain` for the "
            "others."
        )
    return next(iter(found.values()), None)


def known_bank_id(session: Session, transaction_id: int) -> str | None:
    """Return the bank's id of a transaction's transfer, or None if none is known.

    Raises:
        UnknownTransaction: if the transaction was never sent.
    """
    row = session.execute(
        select(TransferEvidence.bank_transfer_id).where(TransferEvidence.transaction_id == transaction_id)
    ).one_or_none()
    if row is None:
        raise UnknownTransaction(
            f"Transaction {transaction_id} does not exist or was never sent, so there is nothing to settle. Check the "
            "number on the batch screen."
        )
    bank_id: str | None = row.bank_transfer_id
    return bank_id


def settle(
    session: Session, decision: Settlement, answer: BankTransfer | UnreadableTransfer | None
) -> SettlementReport:
    """Settle a transfer: its status, ledger, balance and request become what `decision` says.

    Args:
        session: in a transaction of its own, which the audit attributes to the person.
        decision: what is to be recorded, and why.
        answer: what the bank says now, from `ask_bank`.

    Raises:
        UnknownTransaction, SettlementRefused: nothing was changed.
    """
    row = _lock(session, decision.transaction_id)
    if row.batch_id is not None:
        _require_no_worker(session, row.batch_id)
    if row.account_id is None and decision.settle_as is not SettleAs.FAILED:
        raise SettlementRefused(
            f"Transaction {decision.transaction_id} was sent for no request whose case has an account, so there is no "
            "ledger to book it in. Nothing was changed. Find out which request it paid, and book its transfer for that "
            "with `seedtrust-ops transfers explain`."
        )
    if isinstance(answer, UnreadableTransfer):
        bank_says: str | None = "something that cannot be read"
        contradicts: str | None = (
            f"The bank has a transfer for transaction {decision.transaction_id} that cannot be read: "
            f"{single_line(answer.problem)}"
        )
        answer = None
    else:
        bank_says = answer.status.value if answer is not None else None
        contradicts = _find_contradiction(row, decision, answer)
    if contradicts is not None and not decision.contradict_bank:
        raise SettlementRefused(
            f"{contradicts} Nothing was changed. If Huntington has told you otherwise, repeat the command with "
            "--contradict-bank; all admins are then emailed."
        )
    if answer is None and decision.settle_as is SettleAs.FAILED:
        _require_grace_over(session, decision)
    transfer = _as_transfer(row, decision, answer)
    # First: to an operator, the database allows the other changes only together with this one.
    _set_evidence(session, decision, row, answer)
    bank_ids = {one for one in (row.bank_transfer_id, answer.id if answer is not None else None) if one is not None}
    explain_by_settlement(
        session, bank_ids, decision.transaction_id, by=decision.by, reason=f"settled as {decision.settle_as}"
    )
    if transfer.amount_cents != row.amount_cents and decision.settle_as is not SettleAs.FAILED:
        open_amount_alert(session, decision.transaction_id, row.amount_cents, transfer)
    booking = _Booking(decision.transaction_id, transfer)
    if row.batch_id is not None:
        _set_status(session, decision)
        if decision.settle_as is not SettleAs.FAILED:
            post_disbursements(session, [booking])
        if decision.settle_as is SettleAs.RETURNED:
            post_reversals(session, [booking])
    # All that is booked for a transaction that somebody has deleted.
    memo = f"Correction of transaction {decision.transaction_id} by {decision.by}: {decision.reason}"
    corrected_cents = correct_entries(session, booking, memo)
    if decision.settle_as is not SettleAs.COMPLETED:
        restore_requests(session, [decision.transaction_id])
    _append_evidence(session, decision)
    resolve_all_of(session, SETTLED_RULES, f"transaction {decision.transaction_id}")
    if row.batch_id is not None:
        finish_batches(session, [row.batch_id])
    notified = _email_admins(session, decision, bank_says) if contradicts is not None else 0
    return SettlementReport(
        transaction_id=decision.transaction_id,
        before=row.status,
        after=decision.settle_as.value,
        bank_status=bank_says,
        correction_cents=corrected_cents,
        request_id=row.request_id,
        admins_notified=notified,
    )


def summarize(report: SettlementReport) -> str:
    """Return what settling changed, in sentences for the person who did it."""
    bank = f"The bank says {report.bank_status}." if report.bank_status else "The bank does not know it."
    sentences = [f"Transaction {report.transaction_id} was {report.before} and is now {report.after}.", bank]
    if report.correction_cents:
        sentences.append(f"A ledger correction of {format_dollars(report.correction_cents)} was posted.")
    if report.admins_notified:
        sentences.append(f"Admins to be emailed: {report.admins_notified}.")
    return " ".join(sentences)


@dataclass(frozen=True)
class _Known:
    """What is stored of the transfer; the request and the amount in cents are those that it was sent for.

    `batch_id` is None if somebody has deleted the transaction. `bank_status` is the bank's newest recorded answer.
    """

    batch_id: int | None
    status: str
    request_id: int | None
    account_id: int | None
    method: str
    amount_cents: int
    bank_transfer_id: str | None
    bank_status: BankStatus | None
    bank_updated_at: datetime | None
    missing_since: datetime | None


@dataclass(frozen=True)
class _Booking:
    transaction_id: int
    transfer: BankTransfer


def _lock(session: Session, transaction_id: int) -> _Known:
    batch_id: int | None = session.scalar(
        select(HuntingtonTransaction.batch_id).where(HuntingtonTransaction.id == transaction_id)
    )
    if batch_id is not None:
        lock_batches(session, [batch_id])
    transaction = session.execute(
        select(HuntingtonTransaction.batch_id, HuntingtonTransaction.status)
        .where(HuntingtonTransaction.id == transaction_id)
        .with_for_update()
    ).one_or_none()
    if batch_id != (transaction.batch_id if transaction is not None else None):
        raise SettlementRefused(
            f"Somebody moved or deleted transaction {transaction_id} just now. Nothing was changed. Try again."
        )
    sent = session.execute(
        select(
            TransferEvidence.disbursement_request_id,
            TransferEvidence.account_id,
            TransferEvidence.method,
            TransferEvidence.amount_cents,
            TransferEvidence.bank_transfer_id,
            TransferEvidence.bank_status,
            TransferEvidence.bank_updated_at,
            TransferEvidence.missing_since,
        )
        .where(TransferEvidence.transaction_id == transaction_id)
        .with_for_update()
    ).one()
    return _Known(
        batch_id,
        transaction.status if transaction is not None else "deleted",
        sent.disbursement_request_id,
        sent.account_id,
        sent.method,
        sent.amount_cents,
        sent.bank_transfer_id,
        BankStatus(sent.bank_status) if sent.bank_status is not None else None,
        sent.bank_updated_at,
        sent.missing_since,
    )


def _require_no_worker(session: Session, batch_id: int) -> None:
    holder = session.scalar(
        select(BatchLease.holder).where(BatchLease.batch_id == batch_id, has_live_lease(BatchLease.batch_id))
    )
    if holder is not None:
        raise SettlementRefused(
            f"Run {holder} is sending batch {batch_id}. Nothing was changed. Wait until it ends, or terminate it first."
        )


def _find_contradiction(row: _Known, decision: Settlement, answer: BankTransfer | None) -> str | None:
    """Return what the bank says that the decision contradicts, or None.

    If auto-heal has recorded something newer since the bank was asked, that is what the bank says. A bank that does not
    find a transfer has not taken back what it said of it, unless it had only accepted it and has forgotten it.
    """
    said, bank_id = row.bank_status, row.bank_transfer_id
    if answer is not None and (row.bank_updated_at is None or answer.updated_at >= row.bank_updated_at):
        said, bank_id = answer.status, answer.id
    if said is not None:
        is_forgotten = (
            answer is None
            and said is BankStatus.ACCEPTED
            and row.missing_since is not None
            and row.missing_since <= datetime.now(UTC) - timedelta(seconds=decision.unknown_grace_seconds)
        )
        if is_forgotten or STATUS_BY_BANK_STATUS[said] == decision.settle_as:
            return None
        missing = " and does not find it now; a lookup can lag behind" if answer is None else ""
        return f"The bank reports transaction {decision.transaction_id} (bank transfer {bank_id}) as {said}{missing}."
    if decision.settle_as is not SettleAs.FAILED:
        return f"The bank has never known transaction {decision.transaction_id}."
    return None


def _require_grace_over(session: Session, decision: Settlement) -> None:
    last_sent = (
        select(func.max(TransferAttempt.started_at))
        .where(TransferAttempt.transaction_id == decision.transaction_id)
        .scalar_subquery()
    )
    remaining = session.scalar(
        select(last_sent + timedelta(seconds=decision.unknown_grace_seconds) - func.clock_timestamp())
    )
    if remaining is not None and remaining > timedelta(0):
        raise SettlementRefused(
            f"Transaction {decision.transaction_id} was sent less than {decision.unknown_grace_seconds:g} seconds ago, "
            "and its request may still be on its way to the bank. Nothing was changed. Try again in "
            f"{remaining.total_seconds():.0f} seconds."
        )


def _as_transfer(row: _Known, decision: Settlement, answer: BankTransfer | None) -> BankTransfer:
    """Return the transfer as it is booked: the bank's amount if the bank knows it, else ours."""
    status = {
        SettleAs.COMPLETED: BankStatus.COMPLETED,
        SettleAs.FAILED: BankStatus.REJECTED,
        SettleAs.RETURNED: BankStatus.RETURNED,
    }[decision.settle_as]
    if answer is not None:
        return replace(answer, status=status, return_code=None, reason=None)
    now = datetime.now(UTC)
    return BankTransfer(
        id=row.bank_transfer_id or "unknown to the bank",
        idempotency_key=idempotency_key(decision.transaction_id),
        status=status,
        method=row.method,
        amount_cents=row.amount_cents,
        reference=str(decision.transaction_id),
        created_at=now,
        updated_at=now,
    )


def _set_status(session: Session, decision: Settlement) -> None:
    is_completed = decision.settle_as is SettleAs.COMPLETED
    session.execute(
        update(HuntingtonTransaction)
        .where(HuntingtonTransaction.id == decision.transaction_id)
        .values(
            status=decision.settle_as.value,
            failure_reason=None if is_completed else f"settled by {decision.by}: {decision.reason}",
            completed_at=func.clock_timestamp() if is_completed else HuntingtonTransaction.completed_at,
            updated_at=func.clock_timestamp(),
        )
    )


def _set_evidence(session: Session, decision: Settlement, row: _Known, answer: BankTransfer | None) -> None:
    is_completed = decision.settle_as is SettleAs.COMPLETED
    seen_at = max(answer.updated_at, row.bank_updated_at or answer.updated_at) if answer is not None else None
    session.execute(
        update(TransferEvidence)
        .where(TransferEvidence.transaction_id == decision.transaction_id)
        .values(
            state=(State.MOVED if is_completed else State.NOT_MOVED).value,
            bank_amount_cents=answer.amount_cents if answer is not None else TransferEvidence.bank_amount_cents,
            settled_as=decision.settle_as.value,
            settled_seen_at=seen_at,
            missing_since=None,
            unknown_to_bank_at=None,
            changed_at=func.clock_timestamp(),
        )
    )


def _append_evidence(session: Session, decision: Settlement) -> None:
    latest = latest_attempts(session, [decision.transaction_id])
    attempt = latest.get(decision.transaction_id) or StartedAttempt(
        decision.transaction_id, 0, session.scalars(select(func.clock_timestamp())).one()
    )
    detail = f"settled as {decision.settle_as} by {decision.by}: {decision.reason}"
    end_attempts(session, [AttemptEnd(attempt, AttemptOutcome.SETTLED, detail=detail)])


def _email_admins(session: Session, decision: Settlement, bank_status: str | None) -> int:
    admins = session.execute(
        select(User.id, User.email).where(User.role == "admin", User.is_active).order_by(User.id)
    ).all()
    if not admins:
        alert_nobody_to_notify(
            session, "transfer-settled", "a transaction that was settled against the bank", [decision.transaction_id]
        )
    moment = session.scalars(select(func.to_char(func.now(), "YYYYMMDDHH24MISS", type_=Text()))).one()
    enqueue_emails(
        session,
        [
            Email(
                dedupe_key=f"transfer-settled:{decision.transaction_id}:{moment}:{admin.id}",
                kind="transfer-settled",
                recipient_id=admin.id,
                recipient_email=admin.email,
                variables={
                    "transaction_id": decision.transaction_id,
                    "settled_as": decision.settle_as.value,
                    "settled_by": decision.by,
                    "reason": decision.reason,
                    "bank_says": bank_status or "unknown",
                },
            )
            for admin in admins
        ],
    )
    return len(admins)
