"""Tells the sandbox bank of the transfers that a seeded company made in the past, so that both ledgers agree.

A real bank knows them by itself.
"""

from sqlalchemy import BigInteger, Text, column, select, update, values
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.transfers.idempotency_keys import idempotency_key
from seedtrust_ops.sandbox.bank.control_client import SandboxBank
from seedtrust_ops.tables import HuntingtonTransaction


def plant_past_transfers(sessions: sessionmaker[Session], bank: SandboxBank) -> int:
    """Plant every transfer that went through and that the bank does not know yet; return how many.

    The bank's ids are recorded in the transactions, as they would have been when they were sent.
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
    # No transaction is open meanwhile: on a busy machine the bank takes longer than the database lets one idle.
    bank_ids = [(one.id, _planted(one, bank)) for one in past]
    if bank_ids:
        news = values(column("id", BigInteger), column("bank_id", Text), name="news").data(bank_ids)
        with sessions.begin() as session:
            session.execute(
                update(HuntingtonTransaction)
                .where(HuntingtonTransaction.id == news.c.id)
                .values(bank_transfer_id=news.c.bank_id)
            )
    return len(bank_ids)


def _planted(one: HuntingtonTransaction, bank: SandboxBank) -> str:
    returned = one.status == "returned"
    planted = bank.plant_transfer(
        str(one.id),
        one.amount_cents,
        idempotency_key=idempotency_key(one.id),
        method=one.method,
        status="returned" if returned else "completed",
        return_code=one.failure_reason if returned else None,
        created_at=one.completed_at,
    )
    return planted["id"]
