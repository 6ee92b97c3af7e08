"""Health of what people wait for: reports that nobody begins, and disbursement requests past their date."""

from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.approvals.writer import is_approvable
from seedtrust_ops.domain.health.rule import in_time
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import DisbursementRequest, ReportRequest

REPORTS_WAITING = "reports_waiting"
DRS_OVERDUE = "drs_overdue"
PENDING_REPORT = 1


def reports_waiting(session: Session, *, longest_seconds: float) -> list[Finding]:
    """Find that the oldest pending report request has waited for more than `longest_seconds`."""
    number, seconds = session.execute(
        select(func.count(), func.extract("epoch", func.now() - func.min(ReportRequest.requested_at))).where(
            ReportRequest.status == PENDING_REPORT
        )
    ).one()
    if not number or seconds <= longest_seconds:
        return []
    return [
        Finding(
            REPORTS_WAITING,
            "report requests",
            Severity.HIGH,
            f"{number} report request{' waits' if number == 1 else 's wait'}, the oldest for "
            f"{in_time(float(seconds))}. See the last runs of report_generation and the ticks of its schedule; S3 or "
            "the mail server may be down.",
        )
    ]


def drs_overdue(session: Session, *, longest_seconds: float) -> list[Finding]:
    """Find requests that could be approved and whose date passed more than `longest_seconds` ago."""
    number, seconds = session.execute(
        select(func.count(), func.extract("epoch", func.now() - func.min(DisbursementRequest.auto_authorize_at))).where(
            *is_approvable(), DisbursementRequest.auto_authorize_at < func.now() - timedelta(seconds=longest_seconds)
        )
    ).one()
    if not number:
        return []
    return [
        Finding(
            DRS_OVERDUE,
            "disbursement requests",
            Severity.HIGH,
            f"{number} disbursement request{' was' if number == 1 else 's were'} due for approval over "
            f"{in_time(longest_seconds)} ago, the first {in_time(float(seconds))} ago. See the last runs of "
            "dr_auto_approval and the ticks of its schedule, then launch it by hand.",
        )
    ]
