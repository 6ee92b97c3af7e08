"""Accounting checks that must hold at any time, each one query that finds the violations.

The balance checks cover all accounts, not only those of active cases, because closed cases can hold money too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from seedtrust_ops.tables import Account, Case, DisbursementRequest, LedgerEntry

MAX_ROWS_SHOWN = 50


@dataclass(frozen=True)
class Violations:
    """The number of violations and the first rows, worst first; columns ending in `_cents` are amounts in cents."""

    count: int
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def ledger_mismatches(session: Session) -> Violations:
    """Return the accounts whose balance does not equal the sum of their ledger entries."""
    ledger = (
        select(LedgerEntry.account_id, func.sum(LedgerEntry.amount_cents).label("cents"))
        .group_by(LedgerEntry.account_id)
        .subquery()
    )
    ledger_cents = func.coalesce(ledger.c.cents, 0)
    return _find_violations(
        session,
        select(
            Account.id.label("account"),
            Case.case_number.label("case"),
            Account.balance_cents,
            ledger_cents.label("ledger_cents"),
            (Account.balance_cents - ledger_cents).label("difference_cents"),
        )
        .join(Case, Case.id == Account.case_id)
        .outerjoin(ledger, ledger.c.account_id == Account.id)
        .where(Account.balance_cents != ledger_cents)
        .order_by(func.abs(Account.balance_cents - ledger_cents).desc(), Account.id),
    )


def negative_balances(session: Session) -> Violations:
    """Return the accounts with a negative balance."""
    return _find_violations(
        session,
        select(Account.id.label("account"), Case.case_number.label("case"), Case.status, Account.balance_cents)
        .join(Case, Case.id == Account.case_id)
        .where(Account.balance_cents < 0)
        .order_by(Account.balance_cents, Account.id),
    )


def active_cases_without_account(session: Session) -> Violations:
    """Return the active cases without an account."""
    return _find_violations(
        session,
        select(Case.id, Case.case_number.label("case"), Case.created_at)
        .outerjoin(Account, Account.case_id == Case.id)
        .where(Case.status == "active", Account.id.is_(None))
        .order_by(Case.id),
    )


def overcommitted_cases(session: Session) -> Violations:
    """Return the cases whose approved, unpaid requests exceed their account balance."""
    approved = (
        select(
            DisbursementRequest.case_id,
            func.count().label("requests"),
            func.sum(DisbursementRequest.amount_cents).label("cents"),
        )
        .where(DisbursementRequest.status == "approved")
        .group_by(DisbursementRequest.case_id)
        .subquery()
    )
    balance = func.coalesce(Account.balance_cents, 0)
    return _find_violations(
        session,
        select(
            Case.case_number.label("case"),
            Account.id.label("account"),
            approved.c.requests,
            approved.c.cents.label("approved_cents"),
            balance.label("balance_cents"),
            (approved.c.cents - balance).label("missing_cents"),
        )
        .join(Case, Case.id == approved.c.case_id)
        .outerjoin(Account, Account.case_id == Case.id)
        .where(approved.c.cents > balance)
        .order_by((approved.c.cents - balance).desc(), Case.id),
    )


def _find_violations(session: Session, query: Select[*tuple[Any, ...]]) -> Violations:
    """Return the first violations and their total number, in one statement."""
    result = session.execute(query.add_columns(func.count().over()).limit(MAX_ROWS_SHOWN))
    rows = result.all()
    return Violations(
        count=rows[0][-1] if rows else 0,
        columns=list(result.keys())[:-1],
        rows=[tuple(row[:-1]) for row in rows],
    )
