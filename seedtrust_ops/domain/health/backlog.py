"""Health of the work that people wait for: report requests that no run starts, and overdue disbursement requests."""

from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.approvals.writer import is_approvable
from seedtrust_ops.formatting import format_duration
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import DisbursementRequest, ReportRequest

REPORTS_WAITING = "reports_waiting"
DRS_OVERDUE = "drs_overdue"
PENDING_REPORT = 1


def reports_waiting(session: Session, *, max_wait_seconds: float) -> list[Finding]:
    """Find whether the oldest pending report request has waited for more than `max_wait_seconds`."""
    number, seconds = session.execute(
        select(func.count(), func.extract("epoch", func.now() - func.min(ReportRequest.requested_at))).where(
            ReportRequest.status == PENDING_REPORT
        )
    ).one()
    if not number or seconds <= max_wait_seconds:
        return []
    return [
        Finding(
            REPORTS_WAITING,
            "report requests",
            Severity.HIGH,
            f"{number} report request{' is' if number == 1 else 's are'} waiting, the oldest for "
            f"{format_duration(float(seconds))}. Check the last runs of report_generation and the ticks of its "
            "schedule; S3 or the mail server may be down. The requests are processed automatically once it runs again.",
        )
    ]


def drs_overdue(session: Session, *, max_overdue_seconds: float) -> list[Finding]:
    """Find whether requests that could be approved are more than `max_overdue_seconds` past their approval date."""
    number, seconds = session.execute(
        select(func.count(), func.extract("epoch", func.now() - func.min(DisbursementRequest.auto_authorize_at))).where(
            *is_approvable(),
            DisbursementRequest.auto_authorize_at < func.now() - timedelta(seconds=max_overdue_seconds),
        )
    ).one()
    if not number:
        return []
    return [
        Finding(
            DRS_OVERDUE,
            "disbursement requests",
            Severity.HIGH,
            f"{number} disbursement request{' is' if number == 1 else 's are'} overdue for approval by more than "
            f"{format_duration(max_overdue_seconds)}, the oldest by {format_duration(float(seconds))}. Check the last "
            "runs of dr_auto_approval and the ticks of its schedule, then launch the job manually.",
        )
    ]
