"""Copies a seeded company's past transfers into the sandbox bank, so that both ledgers agree.

A real bank would already have them.
"""

from sqlalchemy import BigInteger, Text, column, select, update, values
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.transfers.idempotency_keys import idempotency_key
from seedtrust_ops.sandbox.bank.control_client import SandboxBank
from seedtrust_ops.tables import HuntingtonTransaction


def backfill_past_transfers(sessions: sessionmaker[Session], bank: SandboxBank) -> int:
    """Insert every completed or returned transfer that the bank does not have yet; return how many.

    The bank's ids are recorded on the transactions, as they would have been when the transfers were sent.
    """
    with sessions() as session:
        past = session.scalars(
            select(HuntingtonTransaction)
            .where(
                HuntingtonTransaction.status.in_(("completed", "returned")),
                HuntingtonTransaction.bank_transfer_id.is_(None),
            )
            .order_by(HuntingtonTransaction.id)
        ).all()
    # No database transaction is open here: on a busy machine the bank can take longer than the idle timeout allows.
    bank_ids = [(transaction.id, _insert_transfer(transaction, bank)) for transaction in past]
    if bank_ids:
        inserted = values(column("id", BigInteger), column("bank_id", Text), name="inserted").data(bank_ids)
        with sessions.begin() as session:
            session.execute(
                update(HuntingtonTransaction)
                .where(HuntingtonTransaction.id == inserted.c.id)
                .values(bank_transfer_id=inserted.c.bank_id)
            )
    return len(bank_ids)


def _insert_transfer(transaction: HuntingtonTransaction, bank: SandboxBank) -> str:
    """Insert one past transfer at the bank; return the bank's id of it."""
    returned = transaction.status == "returned"
    transfer = bank.insert_transfer(
        str(transaction.id),
        transaction.amount_cents,
        idempotency_key=idempotency_key(transaction.id),
        method=transaction.method,
        status="returned" if returned else "completed",
        return_code=transaction.failure_reason if returned else None,
        created_at=transaction.completed_at,
    )
    return transfer["id"]
