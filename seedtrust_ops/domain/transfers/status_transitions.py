"""Applies the bank's statuses to transactions: status, ledger, balance and request in one database transaction.

Which of the bank's answers counts is in `evidence`; applying the same one twice changes nothing. The newest answer
replaces whatever status a person has written.
See docs/decisions/ledger-posting.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, Text, case, exists, func, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import open_alert, resolve_alerts
from seedtrust_ops.domain.sql_arrays import array_table, in_array
from seedtrust_ops.domain.transfers.evidence import (
    MISSING_TRANSFER_RULE,
    UNDELIVERABLE_RULE,
    Answer,
    Reading,
    State,
    ensure_evidence,
    record_answers,
)
from seedtrust_ops.domain.transfers.ledger_posting import (
    correct_entries,
    post_disbursements,
    post_reversals,
    settled_transactions,
)
from seedtrust_ops.domain.transfers.unknown_transfers import UnmatchedTransfer, record_unknown
from seedtrust_ops.ports.bank import BankStatus, BankTransfer
from seedtrust_ops.tables import Alert, HuntingtonTransaction, TransferEvidence

STATUS_BY_BANK_STATUS = {
    BankStatus.ACCEPTED: "submitted",
    BankStatus.COMPLETED: "completed",
    BankStatus.REJECTED: "failed",
    BankStatus.RETURNED: "returned",
}
CONTRADICTION_RULE = "bank_contradicts_itself"
NOT_SENT_PREFIX = "not sent: "
"""The start of the failure reason of a transaction that we failed ourselves, before the bank saw it."""


@dataclass(frozen=True)
class StatusChange:
    """A transaction whose status changed."""

    transaction_id: int
    batch_id: int
    before: str
    after: str
    transfer: BankTransfer


def apply_bank_statuses(session: Session, transfers: Mapping[int, BankTransfer]) -> list[StatusChange]:
    """Record the bank's status of each transaction, by transaction id; return what changed.

    A completed transfer posts one ledger entry, lowers the balance and marks the request paid. A returned transfer
    posts its reversal, raises the balance and reopens the request. The amounts posted are the bank's, in cents.
    """
    if not transfers:
        return []
    rows = session.execute(
        select(
            HuntingtonTransaction.id,
            HuntingtonTransaction.batch_id,
            HuntingtonTransaction.status,
            HuntingtonTransaction.failure_reason,
            HuntingtonTransaction.amount_cents,
        )
        .where(in_array(HuntingtonTransaction.id, transfers))
        .order_by(HuntingtonTransaction.id)
        .with_for_update()
    ).all()
    ensure_evidence(session, transfers)
    answers = record_answers(session, transfers)
    changes = []
    for row in rows:
        transfer, answer = transfers[row.id], answers[row.id]
        after = STATUS_BY_BANK_STATUS[transfer.status]
        if answer.reading is Reading.CONTRADICTION:
            _open_contradiction_alert(session, row.id, answer, transfer)
        elif answer.reading is Reading.CURRENT and (
            # Also if a person wrote the same status before: nothing is booked yet.
            answer.known is not transfer.status or after != row.status or row.failure_reason != _reason(after, transfer)
        ):
            changes.append(StatusChange(row.id, row.batch_id, row.status, after, transfer))
            for cents in (row.amount_cents, answer.sent_cents):
                if transfer.amount_cents != cents:
                    open_amount_alert(session, row.id, cents, transfer)
    found_again = [one for one, answer in answers.items() if answer.was_missing]
    resolve_alerts(session, MISSING_TRANSFER_RULE, [f"transaction {one}" for one in found_again])
    answered = [one for one, answer in answers.items() if answer.known is None]
    resolve_alerts(session, UNDELIVERABLE_RULE, [f"transaction {one}" for one in answered])
    _record_deleted(session, transfers, answers, {row.id for row in rows})
    if changes:
        _set_statuses(session, changes)
        post_disbursements(session, [change for change in changes if change.after in ("completed", "returned")])
        post_reversals(session, [change for change in changes if change.after == "returned"])
        settled = settled_transactions(session, [change.transaction_id for change in changes])
        for change in changes:
            if change.transaction_id in settled:
                memo = f"Correction of transaction {change.transaction_id}: the bank reports it as {change.after}"
                correct_entries(session, change, memo)
    return changes


def open_amount_alert(session: Session, transaction_id: int, cents: int, transfer: BankTransfer) -> None:
    """Open the alert that the bank's transfer has another amount than the transaction's `cents`, now or as sent."""
    open_alert(
        session,
        "amount_differs",
        f"transaction {transaction_id}",
        "CRITICAL",
        f"Transaction {transaction_id} is for {cents} cents, but the bank's transfer {transfer.id} is for "
        f"{transfer.amount_cents} cents. The bank's amount is posted. Find out who changed the amount.",
    )


def alert_unsettled_contradictions(session: Session) -> None:
    """Open the alert again about each contradiction whose alert was closed although nobody has settled it."""
    subject = func.concat("transaction ", TransferEvidence.transaction_id)
    is_open = exists().where(Alert.rule == CONTRADICTION_RULE, Alert.subject == subject, Alert.resolved_at.is_(None))
    rows = session.execute(
        select(TransferEvidence.transaction_id, TransferEvidence.bank_transfer_id, TransferEvidence.bank_status)
        .where(TransferEvidence.state == State.CONTRADICTED.value, ~is_open)
        .order_by(TransferEvidence.transaction_id)
    ).all()
    for row in rows:
        said = (
            f"The bank has contradicted itself about transaction {row.transaction_id} (bank transfer "
            f"{row.bank_transfer_id}, last reported as {row.bank_status}), and nobody has settled it."
        )
        _open_contradiction(session, row.transaction_id, said)


def _open_contradiction_alert(session: Session, transaction_id: int, answer: Answer, transfer: BankTransfer) -> None:
    if answer.other_id is not None:
        before = f"The bank had transfer {answer.other_id} for transaction {transaction_id}, and now has {transfer.id},"
        now = f"which is {transfer.status}: the payee may have been paid twice."
    elif answer.was_settled:
        before = f"A person has settled transaction {transaction_id} (bank transfer {transfer.id}) as {answer.known},"
        now = f"and the bank now reports it as {transfer.status}."
    else:
        before = f"The bank reported transaction {transaction_id} (bank transfer {transfer.id}) as {answer.known},"
        now = f"and now reports it as {transfer.status}."
    _open_contradiction(session, transaction_id, f"{before} {now}")


def _open_contradiction(session: Session, transaction_id: int, said: str) -> None:
    open_alert(
        session,
        CONTRADICTION_RULE,
        f"transaction {transaction_id}",
        "CRITICAL",
        f"{said} Status and ledger stay as they were; its amount counts as in flight and its "
        "request cannot be paid again. Ask Huntington which status is correct, then run `seedtrust-ops transfers "
        f"settle {transaction_id}`.",
    )


def _record_deleted(
    session: Session, transfers: Mapping[int, BankTransfer], answers: Mapping[int, Answer], existing: set[int]
) -> None:
    """Record each transfer whose transaction somebody has deleted, unless a person has settled it as the bank says."""
    record_unknown(
        session,
        [
            UnmatchedTransfer(
                transfers[one],
                f"transaction {one} was deleted after it was sent (if the payment is right, `seedtrust-ops transfers "
                f"settle {one}` books it instead)",
            )
            for one, answer in answers.items()
            if one not in existing and not (answer.was_settled and answer.reading is Reading.OLDER)
        ],
    )


def _set_statuses(session: Session, changes: Sequence[StatusChange]) -> None:
    new_values = array_table(
        "new_values",
        [("id", BigInteger()), ("status", Text()), ("failure_reason", Text()), ("bank_transfer_id", Text())],
        [
            (change.transaction_id, change.after, _reason(change.after, change.transfer), change.transfer.id)
            for change in changes
        ],
    )
    session.execute(
        update(HuntingtonTransaction)
        .where(HuntingtonTransaction.id == new_values.c.id)
        .values(
            status=new_values.c.status,
            failure_reason=new_values.c.failure_reason,
            bank_transfer_id=new_values.c.bank_transfer_id,
            completed_at=case(
                (new_values.c.status == "completed", func.clock_timestamp()),
                else_=HuntingtonTransaction.completed_at,
            ),
            updated_at=func.clock_timestamp(),
        )
    )


def _reason(status: str, transfer: BankTransfer) -> str | None:
    if status == "returned":
        return transfer.return_code or "returned"
    if status == "failed":
        return transfer.reason or "rejected"
    return None


def fail_transactions(session: Session, reasons: Mapping[int, str], *, from_status: str) -> None:
    """Set transactions that still have status `from_status` to `failed`, each with its reason."""
    if not reasons:
        return
    new_values = array_table("new_values", [("id", BigInteger()), ("reason", Text())], reasons.items())
    session.execute(
        update(HuntingtonTransaction)
        .where(HuntingtonTransaction.id == new_values.c.id, HuntingtonTransaction.status == from_status)
        .values(status="failed", failure_reason=new_values.c.reason, updated_at=func.clock_timestamp())
    )


def requeue_transactions(session: Session, transaction_ids: Sequence[int]) -> None:
    """Set `processing` transactions whose request provably moved no money back to `pending`."""
    if transaction_ids:
        session.execute(
            update(HuntingtonTransaction)
            .where(in_array(HuntingtonTransaction.id, transaction_ids), HuntingtonTransaction.status == "processing")
            .values(status="pending", updated_at=func.clock_timestamp())
        )
