"""Reminds case managers and admins of accounts below their minimum: one letter a person and day, listing all theirs.

Its dedupe key, `balance-reminder:<account>:<date>:<user>`, names the lowest-numbered account that the letter lists.
Because that account may have recovered by a second run, 'one a person and day' is asked of the outbox itself, by
one run at a time.
"""

from datetime import date

from sqlalchemy import Date, func, literal, select, union
from sqlalchemy.dialects.postgresql import aggregate_order_by, insert
from sqlalchemy.orm import Session

from seedtrust_ops.tables import Account, Case, Notification, User

LETTER_KIND = "balance-reminder"
CASES_LISTED = 100
"""A letter lists so many cases, those with the largest shortfall, and says how many more there are."""
_REMINDERS_LOCK = 7_305_403


def remind_of_balances(session: Session, today: date) -> int:
    """Write today's letters about active cases whose account is below its minimum; return how many are new.

    A case's manager is told of their own cases, every active admin of all; a manager who is an admin gets one letter.

    Args:
        session: in a transaction that the caller commits.
        today: by the office's wall clock.
    """
    session.execute(select(func.pg_advisory_xact_lock(_REMINDERS_LOCK)))
    day = literal(today, Date())
    below = (
        select(
            Account.id,
            Case.case_number,
            Case.case_manager_id,
            Account.balance_cents,
            Account.minimum_balance_cents,
            (Account.minimum_balance_cents - Account.balance_cents).label("shortfall_cents"),
        )
        .join(Case, Case.id == Account.case_id)
        .where(Case.status == "active", Account.balance_cents < Account.minimum_balance_cents)
        .cte("below")
    )
    told = union(
        select(User.id.label("user_id"), below.c.id.label("account_id")).join(
            below, below.c.case_manager_id == User.id
        ),
        select(User.id, below.c.id).join(below, User.role == "admin"),
    ).subquery("told")
    ranked = (
        select(
            told.c.user_id,
            *below.c,
            func.row_number()
            .over(partition_by=told.c.user_id, order_by=(below.c.shortfall_cents.desc(), below.c.id))
            .label("place"),
        )
        .join(below, below.c.id == told.c.account_id)
        .subquery("ranked")
    )
    one_case = func.jsonb_build_object(
        *("case_number", ranked.c.case_number),
        *("balance_cents", ranked.c.balance_cents),
        *("minimum_balance_cents", ranked.c.minimum_balance_cents),
        *("shortfall_cents", ranked.c.shortfall_cents),
    )
    told_today = select(Notification.id).where(
        Notification.kind == LETTER_KIND,
        Notification.recipient_id == User.id,
        func.split_part(Notification.dedupe_key, ":", 3) == func.concat(day),
    )
    letters = (
        select(
            func.concat("balance-reminder:", func.min(ranked.c.id), ":", day, ":", User.id),
            literal(LETTER_KIND),
            User.id,
            User.email,
            literal(""),
            func.jsonb_build_object(
                *("as_of", day),
                *(
                    "cases",
                    func.jsonb_agg(aggregate_order_by(one_case, ranked.c.place)).filter(ranked.c.place <= CASES_LISTED),
                ),
                *("cases_left_out", func.greatest(func.count() - CASES_LISTED, 0)),
            ),
        )
        .join(User, User.id == ranked.c.user_id)
        .where(User.is_active, ~told_today.exists())
        .group_by(User.id)
    )
    written = session.scalars(
        insert(Notification)
        .from_select(["dedupe_key", "kind", "recipient_id", "recipient_email", "subject", "variables"], letters)
        .on_conflict_do_nothing(index_elements=["dedupe_key"])
        .returning(Notification.id)
    )
    return len(written.all())
