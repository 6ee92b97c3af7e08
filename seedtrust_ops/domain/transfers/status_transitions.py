"""Applies the bank's statuses to transactions: status, ledger, balance, request and email in one database transaction.

The allowed transitions are the pure function `next_status`; applying the same bank status twice changes nothing.
See docs/decisions/ledger-posting.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, Text, case, func, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import open_alert
from seedtrust_ops.domain.sql_arrays import array_table, in_array
from seedtrust_ops.domain.transfers.ledger_posting import post_disbursements, post_reversals
from seedtrust_ops.ports.bank import BankStatus, BankTransfer
from seedtrust_ops.tables import HuntingtonTransaction

_STATUS_BY_BANK_STATUS = {
    BankStatus.ACCEPTED: "submitted",
    BankStatus.COMPLETED: "completed",
    BankStatus.REJECTED: "failed",
    BankStatus.RETURNED: "returned",
}

# The bank statuses that still change a transaction in each of our statuses. Responses can arrive late and out of order:
# an older status (accepted after completed, anything after returned) never overrides a newer one.
_ACCEPTED_BANK_STATUSES = {
    "pending": set(BankStatus),
    "processing": set(BankStatus),
    "failed": set(BankStatus),
    "submitted": {BankStatus.COMPLETED, BankStatus.REJECTED, BankStatus.RETURNED},
    "completed": {BankStatus.RETURNED},
    "returned": set(),
}


def next_status(current: str, bank_status: BankStatus) -> str | None:
    """Return the new status of a transaction when the bank reports `bank_status`, or None if it does not change."""
    return _STATUS_BY_BANK_STATUS[bank_status] if bank_status in _ACCEPTED_BANK_STATUSES[current] else None


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
    posts its reversal, raises the balance, reopens the request and emails the escrow specialist. The amounts posted
    are the bank's, in cents.
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
    changes = []
    for row in rows:
        transfer = transfers[row.id]
        after = next_status(row.status, transfer.status)
        if after is not None and after == row.status and row.failure_reason == _reason(after, transfer):
            continue
        if after is not None:
            changes.append(StatusChange(row.id, row.batch_id, row.status, after, transfer))
            if transfer.amount_cents != row.amount_cents:
                open_alert(
                    session,
                    "amount_differs",
                    f"transaction {row.id}",
                    "CRITICAL",
                    f"Transaction {row.id} is for {row.amount_cents} cents, but the bank's transfer {transfer.id} is "
                    f"for {transfer.amount_cents} cents. The bank's amount is posted. Find out who changed the amount.",
                )
        elif row.status == "completed" and transfer.status is BankStatus.REJECTED:
            open_alert(
                session,
                "bank_contradicts_itself",
                f"transaction {row.id}",
                "CRITICAL",
                f"The bank reported transaction {row.id} (bank transfer {transfer.id}) as completed, and now reports "
                "it as rejected. The ledger still has it as paid. Ask Huntington which status is correct.",
            )
    if changes:
        _set_statuses(session, changes)
        post_disbursements(session, [change for change in changes if change.after in ("completed", "returned")])
        post_reversals(session, [change for change in changes if change.after == "returned"])
    return changes


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
