"""Finds the case-close reminders to escrow specialists: on the close date, or once afterwards if it was missed.

There is one reminder per case and close date; a case with a new close date gets another one on that date.
See docs/decisions/outbox.md.
"""

from collections.abc import Sequence
from datetime import date

from sqlalchemy import ColumnElement, Date, func, literal, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.outbox import Email
from seedtrust_ops.domain.outbox.recipients import alert_nobody_to_notify, resolve_nobody_to_notify
from seedtrust_ops.formatting import pluralize
from seedtrust_ops.tables import Account, Case, DisbursementRequest, Notification, User
from seedtrust_ops.tables.user_text import cut_text

NOTIFICATION_KIND = "case-close"


def find_case_close_reminders(session: Session, today: date) -> list[Email]:
    """Return the emails for cases whose close date has come, that are not closed, and that got no email for that date.

    An inactive specialist gets no email. If the case gets an active specialist later, that person gets a late one.
    Until then an alert says that nobody is reminded.

    `today` is the date in the office's time zone.
    """
    day = literal(today, Date())
    # Regardless of the recipient: a specialist who takes over a case gets no late reminder if one was sent in time.
    reminded = (
        select(
            func.split_part(Notification.dedupe_key, ":", 2).label("case_id"),
            func.split_part(Notification.dedupe_key, ":", 3).label("close_on"),
        )
        .where(Notification.kind == NOTIFICATION_KIND)
        .subquery("reminded")
    )
    open_requests = (
        select(DisbursementRequest.case_id, func.count().label("requests"))
        .where(DisbursementRequest.status.in_(("pending", "approved")))
        .group_by(DisbursementRequest.case_id)
        .subquery("open_requests")
    )
    is_due = (
        Case.status != "closed",
        Case.close_on <= day,
        ~select(reminded.c.case_id)
        .where(
            reminded.c.case_id == func.concat(Case.id),
            reminded.c.close_on == func.concat(Case.close_on),
        )
        .exists(),
    )
    _alert_about_unattended(session, is_due)
    emails = (
        select(
            func.concat("case-close:", Case.id, ":", Case.close_on, ":", User.id).label("dedupe_key"),
            User.id,
            User.email,
            func.jsonb_build_object(
                *("case_number", cut_text(Case.case_number)),
                *("close_on", Case.close_on),
                *("late", Case.close_on < day),
                *("balance_cents", Account.balance_cents),
                *("open_requests", func.coalesce(open_requests.c.requests, 0)),
            ).label("variables"),
        )
        .join(User, User.id == Case.escrow_specialist_id)
        .outerjoin(Account, Account.case_id == Case.id)
        .outerjoin(open_requests, open_requests.c.case_id == Case.id)
        .where(User.is_active, *is_due)
        .order_by(Case.case_number)
    )
    return [
        Email(row.dedupe_key, NOTIFICATION_KIND, row.id, row.email, variables=row.variables)
        for row in session.execute(emails)
    ]


def _alert_about_unattended(session: Session, is_due: Sequence[ColumnElement[bool]]) -> None:
    """Open the alert that cases close without an active specialist to remind, or resolve it if there is none."""
    is_attended = select(User.id).where(User.id == Case.escrow_specialist_id, User.is_active).exists()
    cases = session.scalars(select(Case.id).where(*is_due, ~is_attended).order_by(Case.id)).all()
    if not cases:
        resolve_nobody_to_notify(session, NOTIFICATION_KIND)
        return
    what = f"{pluralize(len(cases), 'case')} whose close date has come"
    alert_nobody_to_notify(session, NOTIFICATION_KIND, what, cases)
