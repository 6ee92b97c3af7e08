"""Keeps `ops.balance_alerts` current: one open row per active case account that is below its minimum balance.

Two statements cover all accounts. Both find alerts by index, because a table that was just filled has no statistics
yet, and a plan that relies on them takes minutes.
"""

from dataclasses import dataclass

from sqlalchemy import func, literal_column, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from seedtrust_ops.domain.sql_ranges import cents_between
from seedtrust_ops.tables import Account, BalanceAlert, Case


@dataclass(frozen=True)
class AlertChanges:
    """How many alerts were opened and resolved, and how many open ones got new amounts."""

    opened: int = 0
    resolved: int = 0
    changed: int = 0


def update_alerts(session: Session) -> AlertChanges:
    """Open, update and resolve alerts according to current balances."""
    resolved = _resolve(session)
    opened, changed = _open(session)
    return AlertChanges(opened=opened, resolved=resolved, changed=changed)


def _resolve(session: Session) -> int:
    is_still_below = (
        select(Account.id)
        .join(Case, Case.id == Account.case_id)
        .where(
            Account.id == BalanceAlert.account_id,
            Case.status == "active",
            Account.balance_cents < Account.minimum_balance_cents,
        )
        .exists()
    )
    resolved = (
        update(BalanceAlert)
        .where(BalanceAlert.resolved_at.is_(None), ~is_still_below)
        .values(resolved_at=func.now())
        .returning(BalanceAlert.id)
        .cte("resolved")
    )
    return session.scalar(select(func.count()).select_from(resolved)) or 0


def _open(session: Session) -> tuple[int, int]:
    """Open an alert for each account below its minimum or update the open one; return both counts."""
    below = (
        select(
            Account.id,
            Account.balance_cents,
            Account.minimum_balance_cents,
            cents_between(Account.balance_cents, Account.minimum_balance_cents),
        )
        .join(Case, Case.id == Account.case_id)
        .where(Case.status == "active", Account.balance_cents < Account.minimum_balance_cents)
        .order_by(Account.id)
    )
    amounts = ["balance_cents", "minimum_balance_cents", "shortfall_cents"]
    statement = insert(BalanceAlert).from_select(["account_id", *amounts], below)
    new = statement.excluded
    # In PostgreSQL, xmax is 0 for a row that this statement inserted, and not for one that it updated.
    written = (
        statement.on_conflict_do_update(
            index_elements=["account_id"],
            index_where=BalanceAlert.resolved_at.is_(None),
            set_={name: new[name] for name in amounts},
            where=or_(
                BalanceAlert.balance_cents != new.balance_cents,
                BalanceAlert.minimum_balance_cents != new.minimum_balance_cents,
            ),
        )
        .returning(literal_column("xmax = 0").label("is_new"))
        .cte("written")
    )
    opened, changed = session.execute(
        select(func.count().filter(written.c.is_new), func.count().filter(~written.c.is_new))
    ).one()
    return opened, changed
