"""Approves every pending request whose `auto_authorize_at` has passed, regardless of rules and balances.

If it runs twice, also concurrently, the second run finds nothing pending, so each request is approved once.
"""

from sqlalchemy import func, literal, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.approvals.writer import (
    ApprovalReport,
    is_approvable,
    lock_approvals,
    preview_approvals,
    record_approvals,
)
from seedtrust_ops.tables import DisbursementRequest

APPROVED_BY_DATE = "auto:date"


def approve_due(session: Session) -> ApprovalReport:
    """Approve what is due now by the database's clock and queue the emails, all in one statement."""
    lock_approvals(session)
    return record_approvals(
        session,
        update(DisbursementRequest)
        .where(*is_approvable(), DisbursementRequest.auto_authorize_at <= func.now())
        .values(status="approved", approved_at=func.now(), approved_by=APPROVED_BY_DATE),
    )


def preview_due(session: Session) -> ApprovalReport:
    """Return what `approve_due` would approve now, without changing anything."""
    due = select(
        DisbursementRequest.id,
        DisbursementRequest.case_id,
        DisbursementRequest.payee_id,
        DisbursementRequest.category,
        DisbursementRequest.amount_cents,
        literal(APPROVED_BY_DATE).label("approved_by"),
    ).where(*is_approvable(), DisbursementRequest.auto_authorize_at <= func.now())
    return preview_approvals(session, due.subquery("due"))
