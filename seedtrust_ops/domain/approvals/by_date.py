"""Approves every pending request whose `auto_authorize_at` has passed; it looks at no rule and no balance.

Twice in a row, or twice at once, the second finds nothing pending: an approved request is approved once.
"""

from sqlalchemy import func, literal, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.approvals.writer import (
    ApprovalReport,
    is_approvable,
    one_approver_at_a_time,
    record_approvals,
    would_approve,
)
from seedtrust_ops.tables import DisbursementRequest

APPROVED_BY_DATE = "auto:date"


def approve_due(session: Session) -> ApprovalReport:
    """Approve what is due now by the database's clock, and write its letters: one statement for all of it."""
    one_approver_at_a_time(session)
    return record_approvals(
        session,
        update(DisbursementRequest)
        .where(*is_approvable(), DisbursementRequest.auto_authorize_at <= func.now())
        .values(status="approved", approved_at=func.now(), approved_by=APPROVED_BY_DATE),
    )


def would_approve_due(session: Session) -> ApprovalReport:
    """Return what `approve_due` would approve now; nothing is changed."""
    due = select(
        DisbursementRequest.id,
        DisbursementRequest.case_id,
        DisbursementRequest.payee_id,
        DisbursementRequest.category,
        DisbursementRequest.amount_cents,
        literal(APPROVED_BY_DATE).label("approved_by"),
    ).where(*is_approvable(), DisbursementRequest.auto_authorize_at <= func.now())
    return would_approve(session, due.subquery("due"))
