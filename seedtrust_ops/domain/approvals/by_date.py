"""Approves every pending request whose `auto_authorize_at` has come, regardless of rules and balances.

If it runs twice, also concurrently, the second run finds nothing pending, so each request is approved once.
"""

from datetime import UTC, datetime

from sqlalchemy import ColumnElement, func, literal, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.approvals.writer import (
    ApprovalReport,
    is_approvable,
    lock_approvals,
    preview_approvals,
    record_approvals,
    record_separately,
)
from seedtrust_ops.tables import DisbursementRequest

APPROVED_BY_DATE = "auto:date"
FIRST_DATE = datetime(2000, 1, 1, tzinfo=UTC)
"""An approval date before this, such as the year 26 or `-infinity`, is a typing error: only a person may approve."""


def approve_due(session: Session, *, separately: bool = False) -> ApprovalReport:
    """Approve what is due now by the database's clock and queue the emails, all in one statement.

    `separately` leaves out, and names, requests of which a row is locked or refused.
    """
    lock_approvals(session)
    approve = (
        update(DisbursementRequest)
        .where(*is_approvable(), is_due())
        .values(status="approved", approved_at=func.now(), approved_by=APPROVED_BY_DATE)
    )
    if not separately:
        return record_approvals(session, approve)
    due = select(DisbursementRequest.id).where(*is_approvable(), is_due()).order_by(DisbursementRequest.id)
    return record_separately(session, approve, session.scalars(due).all())


def is_due() -> ColumnElement[bool]:
    """Return the SQL condition that a request's approval date has come; `infinity` and the year 20260 never have."""
    return DisbursementRequest.auto_authorize_at.between(FIRST_DATE, func.now())


def preview_due(session: Session) -> ApprovalReport:
    """Return what `approve_due` would approve now, without changing anything."""
    due = select(
        DisbursementRequest.id,
        DisbursementRequest.case_id,
        DisbursementRequest.payee_id,
        DisbursementRequest.category,
        DisbursementRequest.amount_cents,
        literal(APPROVED_BY_DATE).label("approved_by"),
    ).where(*is_approvable(), is_due())
    return preview_approvals(session, due.subquery("due"))
