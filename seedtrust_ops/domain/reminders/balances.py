"""Finds the low-balance reminders to case managers and admins: one email per person and day, listing all their cases.

The dedupe key, `balance-reminder:<account>:<date>:<user>`, has the lowest account id in the email. That account may
have recovered by a second run, so 'one per person and day' is checked in the outbox itself, by one run at a time.
See docs/decisions/outbox.md.
"""

from datetime import date

from sqlalchemy import CTE, Date, func, literal, or_, select, union
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from seedtrust_ops.domain.locks import Lock, hold_lock
from seedtrust_ops.domain.outbox import Email
from seedtrust_ops.domain.outbox.recipients import alert_nobody_to_notify, resolve_nobody_to_notify
from seedtrust_ops.domain.sql_ranges import cents_between
from seedtrust_ops.formatting import pluralize
from seedtrust_ops.tables import Account, Case, Notification, User
from seedtrust_ops.tables.user_text import cut_text

NOTIFICATION_KIND = "balance-reminder"
MAX_CASES_LISTED = 100
"""An email lists at most this many cases, largest shortfall first, and says how many more there are."""


def find_balance_reminders(session: Session, today: date) -> list[Email]:
    """Return today's emails about active cases whose account is below its minimum, to people who got none today.

    A case manager gets their own cases and every active admin gets all; a manager who is also an admin gets one email.
    If there is no active admin, an alert counts the accounts whose manager is not active either.

    Args:
        session: in a transaction in which the caller also enqueues the emails: another run waits until it ends.
        today: today's date in the office's time zone.
    """
    hold_lock(session, Lock.BALANCE_REMINDERS)
    day = literal(today, Date())
    below = (
        select(
            Account.id,
            cut_text(Case.case_number).label("case_number"),
            Case.case_manager_id,
            Account.balance_cents,
            Account.minimum_balance_cents,
            cents_between(Account.balance_cents, Account.minimum_balance_cents).label("shortfall_cents"),
        )
        .join(Case, Case.id == Account.case_id)
        .where(Case.status == "active", Account.balance_cents < Account.minimum_balance_cents)
        .cte("below")
    )
    _alert_about_unattended(session, below)
    recipients = union(
        select(User.id.label("user_id"), below.c.id.label("account_id")).join(
            below, below.c.case_manager_id == User.id
        ),
        select(User.id, below.c.id).join(below, User.role == "admin"),
    ).subquery("recipients")
    ranked = (
        select(
            recipients.c.user_id,
            *below.c,
            func.row_number()
            .over(partition_by=recipients.c.user_id, order_by=(below.c.shortfall_cents.desc(), below.c.id))
            .label("rank"),
        )
        .join(below, below.c.id == recipients.c.account_id)
        .subquery("ranked")
    )
    one_case = func.jsonb_build_object(
        *("case_number", ranked.c.case_number),
        *("balance_cents", ranked.c.balance_cents),
        *("minimum_balance_cents", ranked.c.minimum_balance_cents),
        *("shortfall_cents", ranked.c.shortfall_cents),
    )
    emailed_today = select(Notification.id).where(
        Notification.kind == NOTIFICATION_KIND,
        Notification.recipient_id == User.id,
        func.split_part(Notification.dedupe_key, ":", 3) == func.concat(day),
    )
    emails = (
        select(
            func.concat("balance-reminder:", func.min(ranked.c.id), ":", day, ":", User.id).label("dedupe_key"),
            User.id,
            User.email,
            func.jsonb_build_object(
                *("as_of", day),
                *(
                    "rows",
                    func.jsonb_agg(aggregate_order_by(one_case, ranked.c.rank)).filter(
                        ranked.c.rank <= MAX_CASES_LISTED
                    ),
                ),
                *("rows_left_out", func.greatest(func.count() - MAX_CASES_LISTED, 0)),
            ).label("variables"),
        )
        .join(User, User.id == ranked.c.user_id)
        .where(User.is_active, ~emailed_today.exists())
        .group_by(User.id)
    )
    return [
        Email(row.dedupe_key, NOTIFICATION_KIND, row.id, row.email, variables=row.variables)
        for row in session.execute(emails)
    ]


def _alert_about_unattended(session: Session, below: CTE) -> None:
    """Open the alert that nobody is reminded of some accounts, or resolve it if there are none."""
    is_attended = (
        select(User.id).where(User.is_active, or_(User.role == "admin", User.id == below.c.case_manager_id)).exists()
    )
    unattended = session.scalars(select(below.c.id).where(~is_attended).order_by(below.c.id)).all()
    if unattended:
        what = f"{pluralize(len(unattended), 'account')} below the minimum balance"
        alert_nobody_to_notify(session, NOTIFICATION_KIND, what, unattended)
    else:
        resolve_nobody_to_notify(session, NOTIFICATION_KIND)
