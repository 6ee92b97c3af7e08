"""Health of the books: every balance is the sum of its ledger, and every completed transfer is in it.

Each is one statement over the whole ledger and sees one moment of it; whoever posts moves both in one transaction.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.health.rule import SHOWN, the_rest
from seedtrust_ops.domain.notifications.renderer import dollars
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Account, HuntingtonTransaction, LedgerEntry

LEDGER_MISMATCH = "ledger_mismatch"


def ledger_mismatch(session: Session) -> list[Finding]:
    """Find accounts whose balance is not the sum of their ledger, and completed transactions that are not in it."""
    return _found(session, _off_their_ledger(), "accounts", _about_an_account) + _found(
        session, _not_booked(), "transactions", _about_a_transaction
    )


def _off_their_ledger() -> Select[*tuple[Any, ...]]:
    booked = (
        select(LedgerEntry.account_id, func.sum(LedgerEntry.amount_cents).label("cents"))
        .group_by(LedgerEntry.account_id)
        .subquery()
    )
    cents = func.coalesce(booked.c.cents, 0)
    return (
        select(Account.id, Account.balance_cents, cents.label("ledger_cents"))
        .outerjoin(booked, booked.c.account_id == Account.id)
        .where(Account.balance_cents != cents)
        .order_by(Account.id)
    )


def _not_booked() -> Select[*tuple[Any, ...]]:
    booked = select(LedgerEntry.id).where(
        LedgerEntry.huntington_transaction_id == HuntingtonTransaction.id, LedgerEntry.kind == "disbursement"
    )
    return (
        select(HuntingtonTransaction.id, HuntingtonTransaction.amount_cents)
        .where(HuntingtonTransaction.status == "completed", ~booked.exists())
        .order_by(HuntingtonTransaction.id)
    )


def _found(
    session: Session, offending: Select[*tuple[Any, ...]], subjects: str, finding: Callable[[Row[Any]], Finding]
) -> list[Finding]:
    rows = session.execute(offending.add_columns(func.count().over().label("number")).limit(SHOWN)).all()
    found = [finding(row) for row in rows]
    if rows and rows[0].number > SHOWN:
        found.append(the_rest(found[0], subjects, rows[0].number - SHOWN))
    return found


def _about_an_account(row: Row[Any]) -> Finding:
    difference = int(row.balance_cents - row.ledger_cents)
    return Finding(
        LEDGER_MISMATCH,
        f"account {row.id}",
        Severity.CRITICAL,
        f"The balance of account {row.id} is {dollars(abs(difference))} {'more' if difference > 0 else 'less'} than "
        "the sum of its ledger entries. Somebody changed one without the other: find out who before anything is paid "
        "from it, then correct the wrong one by hand.",
    )


def _about_a_transaction(row: Row[Any]) -> Finding:
    return Finding(
        LEDGER_MISMATCH,
        f"transaction {row.id}",
        Severity.CRITICAL,
        f"Transaction {row.id} over {dollars(row.amount_cents)} is completed and has no disbursement entry in the "
        "ledger. Compare it with the bank's transfer, then post the entry and lower the balance by hand.",
    )
