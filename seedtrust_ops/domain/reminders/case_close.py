"""Reminds escrow specialists of cases that are to be closed: on the close date, or once afterwards if it was missed.

A case and close date are told of once; a case that gets a new close date is told of again on that one.
"""

from datetime import date

from sqlalchemy import Date, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from seedtrust_ops.tables import Account, Case, DisbursementRequest, Notification, User

LETTER_KIND = "case-close"


def remind_of_closings(session: Session, today: date) -> list[str]:
    """Write the letters for cases whose close date has come and that are not closed.

    An inactive specialist gets none; once the case has an active one, that one gets it, late.

    Args:
        session: in a transaction that the caller commits.
        today: by the office's wall clock.

    Returns:
        The numbers of the cases that letters were written about.
    """
    day = literal(today, Date())
    # Whoever was told: a specialist who takes a case over is not told late of what was told in time.
    told = (
        select(
            func.split_part(Notification.dedupe_key, ":", 2).label("case_id"),
            func.split_part(Notification.dedupe_key, ":", 3).label("close_on"),
        )
        .where(Notification.kind == LETTER_KIND)
        .subquery("told")
    )
    open_requests = (
        select(DisbursementRequest.case_id, func.count().label("requests"))
        .where(DisbursementRequest.status.in_(("pending", "approved")))
        .group_by(DisbursementRequest.case_id)
        .subquery("open_requests")
    )
    letters = (
        select(
            func.concat("case-close:", Case.id, ":", Case.close_on, ":", User.id),
            literal(LETTER_KIND),
            User.id,
            User.email,
            literal(""),
            func.jsonb_build_object(
                *("case_number", Case.case_number),
                *("close_on", Case.close_on),
                *("late", Case.close_on < day),
                *("balance_cents", Account.balance_cents),
                *("open_requests", func.coalesce(open_requests.c.requests, 0)),
            ),
        )
        .join(User, User.id == Case.escrow_specialist_id)
        .outerjoin(Account, Account.case_id == Case.id)
        .outerjoin(open_requests, open_requests.c.case_id == Case.id)
        .where(
            Case.status != "closed",
            Case.close_on <= day,
            User.is_active,
            ~select(told.c.case_id)
            .where(
                told.c.case_id == func.concat(Case.id),
                told.c.close_on == func.concat(Case.close_on),
            )
            .exists(),
        )
    )
    written = session.scalars(
        insert(Notification)
        .from_select(["dedupe_key", "kind", "recipient_id", "recipient_email", "subject", "variables"], letters)
        .on_conflict_do_nothing(index_elements=["dedupe_key"])
        .returning(Notification.variables["case_number"].astext)
    )
    return sorted(written)
