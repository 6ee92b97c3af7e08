"""Health of the ledger: every balance equals the sum of its entries, and every completed transfer is posted.

Each check is one statement over the whole ledger, so it sees one snapshot; balances and entries change in the same
transaction.
See docs/decisions/alerts.md.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.health.rule import MAX_SEPARATE_FINDINGS, remaining_finding
from seedtrust_ops.formatting import format_dollars
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Account, HuntingtonTransaction, LedgerEntry

LEDGER_MISMATCH = "ledger_mismatch"


def ledger_mismatch(session: Session) -> list[Finding]:
    """Find accounts whose balance differs from their ledger entries, and completed transactions without an entry."""
    return _found(session, _mismatched_accounts(), "accounts", _account_finding) + _found(
        session, _unposted_transactions(), "transactions", _transaction_finding
    )


def _mismatched_accounts() -> Select[*tuple[Any, ...]]:
    posted = (
        select(LedgerEntry.account_id, func.sum(LedgerEntry.amount_cents).label("cents"))
        .group_by(LedgerEntry.account_id)
        .subquery()
    )
    cents = func.coalesce(posted.c.cents, 0)
    return (
        select(Account.id, Account.balance_cents, cents.label("ledger_cents"))
        .outerjoin(posted, posted.c.account_id == Account.id)
        .where(Account.balance_cents != cents)
        .order_by(Account.id)
    )


def _unposted_transactions() -> Select[*tuple[Any, ...]]:
    posted = select(LedgerEntry.id).where(
        LedgerEntry.huntington_transaction_id == HuntingtonTransaction.id, LedgerEntry.kind == "disbursement"
    )
    return (
        select(HuntingtonTransaction.id, HuntingtonTransaction.amount_cents)
        .where(HuntingtonTransaction.status == "completed", ~posted.exists())
        .order_by(HuntingtonTransaction.id)
    )


def _found(
    session: Session, violations: Select[*tuple[Any, ...]], subjects: str, finding: Callable[[Row[Any]], Finding]
) -> list[Finding]:
    rows = session.execute(
        violations.add_columns(func.count().over().label("number")).limit(MAX_SEPARATE_FINDINGS)
    ).all()
    found = [finding(row) for row in rows]
    if rows and rows[0].number > MAX_SEPARATE_FINDINGS:
        found.append(remaining_finding(found[0], subjects, rows[0].number - MAX_SEPARATE_FINDINGS))
    return found


def _account_finding(row: Row[Any]) -> Finding:
    difference = int(row.balance_cents - row.ledger_cents)
    return Finding(
        LEDGER_MISMATCH,
        f"account {row.id}",
        Severity.CRITICAL,
        f"The balance of account {row.id} is {format_dollars(abs(difference))} {'more' if difference > 0 else 'less'} "
        "than the sum of its ledger entries: one was changed without the other. Find out who changed it before "
        "anything is paid from this account, then correct whichever is wrong.",
    )


def _transaction_finding(row: Row[Any]) -> Finding:
    return Finding(
        LEDGER_MISMATCH,
        f"transaction {row.id}",
        Severity.CRITICAL,
        f"Transaction {row.id} ({format_dollars(row.amount_cents)}) is completed but has no disbursement entry in the "
        "ledger. Compare it with the bank's transfer, then post the entry and reduce the balance manually.",
    )
