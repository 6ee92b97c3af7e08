"""What must hold of the books at any time, each as one query that finds what offends against it.

They look at every account and not only at those of active cases: money of a closed case is money too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from seedtrust_ops.tables import Account, Case, DisbursementRequest, LedgerEntry

SHOWN = 50


@dataclass(frozen=True)
class Violations:
    """How many offend, and the first of them, worst first; columns whose names end in `_cents` are money."""

    count: int
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def ledger_mismatches(session: Session) -> Violations:
    """Return the accounts whose balance is not the sum of their ledger entries."""
    ledger = (
        select(LedgerEntry.account_id, func.sum(LedgerEntry.amount_cents).label("cents"))
        .group_by(LedgerEntry.account_id)
        .subquery()
    )
    booked = func.coalesce(ledger.c.cents, 0)
    return _offenders(
        session,
        select(
            Account.id.label("account"),
            Case.case_number.label("case"),
            Account.balance_cents,
            booked.label("ledger_cents"),
            (Account.balance_cents - booked).label("difference_cents"),
        )
        .join(Case, Case.id == Account.case_id)
        .outerjoin(ledger, ledger.c.account_id == Account.id)
        .where(Account.balance_cents != booked)
        .order_by(func.abs(Account.balance_cents - booked).desc(), Account.id),
    )


def below_zero(session: Session) -> Violations:
    """Return the accounts that hold less than nothing."""
    return _offenders(
        session,
        select(Account.id.label("account"), Case.case_number.label("case"), Case.status, Account.balance_cents)
        .join(Case, Case.id == Account.case_id)
        .where(Account.balance_cents < 0)
        .order_by(Account.balance_cents, Account.id),
    )


def without_account(session: Session) -> Violations:
    """Return the active cases that have no account."""
    return _offenders(
        session,
        select(Case.id, Case.case_number.label("case"), Case.created_at)
        .outerjoin(Account, Account.case_id == Case.id)
        .where(Case.status == "active", Account.id.is_(None))
        .order_by(Case.id),
    )


def overcommitted_cases(session: Session) -> Violations:
    """Return the cases whose approved and unpaid requests come to more than their account holds."""
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
    held = func.coalesce(Account.balance_cents, 0)
    return _offenders(
        session,
        select(
            Case.case_number.label("case"),
            Account.id.label("account"),
            approved.c.requests,
            approved.c.cents.label("approved_cents"),
            held.label("balance_cents"),
            (approved.c.cents - held).label("missing_cents"),
        )
        .join(Case, Case.id == approved.c.case_id)
        .outerjoin(Account, Account.case_id == Case.id)
        .where(approved.c.cents > held)
        .order_by((approved.c.cents - held).desc(), Case.id),
    )


def _offenders(session: Session, found: Select[*tuple[Any, ...]]) -> Violations:
    """Return the first offenders and how many there are, in one statement."""
    result = session.execute(found.add_columns(func.count().over()).limit(SHOWN))
    rows = result.all()
    return Violations(
        count=rows[0][-1] if rows else 0,
        columns=list(result.keys())[:-1],
        rows=[tuple(row[:-1]) for row in rows],
    )
