"""Records what the bank says of transfers: status, ledger, balance, request and letter, all in one transaction.

The rule of what follows what is the pure function `next_status`; recording the same word twice changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, Text, case, func, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import open_alert
from seedtrust_ops.domain.sql_arrays import array_table, in_array
from seedtrust_ops.domain.transfers.ledger_posting import book_disbursements, book_returns
from seedtrust_ops.ports.bank import BankStatus, BankTransfer
from seedtrust_ops.tables import HuntingtonTransaction

_BECOMES = {
    BankStatus.ACCEPTED: "submitted",
    BankStatus.COMPLETED: "completed",
    BankStatus.REJECTED: "failed",
    BankStatus.RETURNED: "returned",
}

# What the bank may still say of a transaction in each of our statuses. Answers can arrive late and out of
# order: an older word (accepted after completed, anything after returned) never undoes a newer one.
_STILL_OPEN_TO = {
    "pending": set(BankStatus),
    "processing": set(BankStatus),
    "failed": set(BankStatus),
    "submitted": {BankStatus.COMPLETED, BankStatus.REJECTED, BankStatus.RETURNED},
    "completed": {BankStatus.RETURNED},
    "returned": set(),
}


def next_status(current: str, said: BankStatus) -> str | None:
    """Return the status that a transaction takes when the bank says `said` of it, None where it keeps its own."""
    return _BECOMES[said] if said in _STILL_OPEN_TO[current] else None


@dataclass(frozen=True)
class Change:
    """A transaction that took a new status."""

    transaction_id: int
    batch_id: int
    before: str
    after: str
    transfer: BankTransfer


def apply_bank_statuses(session: Session, words: Mapping[int, BankTransfer]) -> list[Change]:
    """Record what the bank says of each transaction, by transaction id; return what changed.

    A completed transfer posts one ledger entry, lowers the balance and marks the request paid; one that came
    back posts its reversal, raises the balance, opens the request again and writes to the escrow specialist.
    The amounts booked are the bank's (cents).
    """
    if not words:
        return []
    rows = session.execute(
        select(
            HuntingtonTransaction.id,
            HuntingtonTransaction.batch_id,
            HuntingtonTransaction.status,
            HuntingtonTransaction.failure_reason,
            HuntingtonTransaction.amount_cents,
        )
        .where(in_array(HuntingtonTransaction.id, words))
        .order_by(HuntingtonTransaction.id)
        .with_for_update()
    ).all()
    changes = []
    for row in rows:
        transfer = words[row.id]
        after = next_status(row.status, transfer.status)
        if after is not None and after == row.status and row.failure_reason == _reason(after, transfer):
            continue
        if after is not None:
            changes.append(Change(row.id, row.batch_id, row.status, after, transfer))
            if transfer.amount_cents != row.amount_cents:
                open_alert(
                    session,
                    "amount_differs",
                    f"transaction {row.id}",
                    "CRITICAL",
                    f"Transaction {row.id} is for {row.amount_cents} cents, and the bank's transfer {transfer.id} for "
                    f"{transfer.amount_cents}. The bank's amount is what is booked: find out who changed it.",
                )
        elif row.status == "completed" and transfer.status is BankStatus.REJECTED:
            open_alert(
                session,
                "bank_contradicts_itself",
                f"transaction {row.id}",
                "CRITICAL",
                f"The bank said that transaction {row.id} (its transfer {transfer.id}) was completed, and now "
                "that it was rejected. The ledger still has it as paid: ask Huntington what is true.",
            )
    if changes:
        _set_statuses(session, changes)
        book_disbursements(session, [change for change in changes if change.after in ("completed", "returned")])
        book_returns(session, [change for change in changes if change.after == "returned"])
    return changes


def _set_statuses(session: Session, changes: Sequence[Change]) -> None:
    news = array_table(
        "news",
        [("id", BigInteger()), ("status", Text()), ("failure_reason", Text()), ("bank_transfer_id", Text())],
        [
            (change.transaction_id, change.after, _reason(change.after, change.transfer), change.transfer.id)
            for change in changes
        ],
    )
    session.execute(
        update(HuntingtonTransaction)
        .where(HuntingtonTransaction.id == news.c.id)
        .values(
            status=news.c.status,
            failure_reason=news.c.failure_reason,
            bank_transfer_id=news.c.bank_transfer_id,
            completed_at=case(
                (news.c.status == "completed", func.clock_timestamp()),
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


def fail_transactions(session: Session, reasons: Mapping[int, str], *, was: str) -> None:
    """Set transactions that are still in status `was` to `failed`, each with its reason."""
    if not reasons:
        return
    news = array_table("news", [("id", BigInteger()), ("reason", Text())], reasons.items())
    session.execute(
        update(HuntingtonTransaction)
        .where(HuntingtonTransaction.id == news.c.id, HuntingtonTransaction.status == was)
        .values(status="failed", failure_reason=news.c.reason, updated_at=func.clock_timestamp())
    )


def requeue(session: Session, transaction_ids: Sequence[int]) -> None:
    """Set transactions whose request provably moved nothing from `processing` back to `pending`."""
    if transaction_ids:
        session.execute(
            update(HuntingtonTransaction)
            .where(in_array(HuntingtonTransaction.id, transaction_ids), HuntingtonTransaction.status == "processing")
            .values(status="pending", updated_at=func.clock_timestamp())
        )
