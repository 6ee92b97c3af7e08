"""Sets the reports that ours would have made beside the states that the legacy cron gave their requests."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.reports.request_queue import EMAILED, FAILED, IN_PROGRESS, PENDING
from seedtrust_ops.domain.shadow_mode.comparison.models import (
    Comparison,
    Period,
    decisions_of,
    looked_at,
    never_looked,
    number_in,
    within,
)
from seedtrust_ops.domain.shadow_mode.report_dry_runs import FAIL, MAKE
from seedtrust_ops.tables import ReportRequest

JOB = "report_generation"
_STATES = {PENDING: "left it pending", IN_PROGRESS: "left it in progress", EMAILED: "emailed it", FAILED: "failed it"}


def compare_reports(session: Session, period: Period) -> Comparison:
    """Compare by the status of each request of the period: made with emailed, failed with failed."""
    judged = looked_at(session, JOB, period)
    if judged is None:
        return never_looked(JOB)
    comparison = Comparison(JOB)
    ours = {number_in(one.subject): one for one in decisions_of(session, JOB, judged)}
    rows = session.execute(
        select(ReportRequest.id, ReportRequest.kind, ReportRequest.status, ReportRequest.error)
        .where(within(ReportRequest.requested_at, judged))
        .order_by(ReportRequest.id)
    )
    for row in rows:
        subject, theirs = f"report request {row.id}", _STATES[row.status]
        decision = ours.get(row.id)
        if decision is None:
            if row.status in (EMAILED, FAILED):
                comparison.differ(subject, "nothing", theirs, "ours has not looked at it: see the runs of its job")
            else:
                comparison.waiting += 1
        elif (decision.decision, row.status) in ((MAKE, EMAILED), (FAIL, FAILED)):
            comparison.agreements += 1
        elif row.status in (PENDING, IN_PROGRESS):
            comparison.differ(subject, decision.decision, theirs, "the legacy cron did not come to its end")
        elif decision.decision == FAIL:
            comparison.differ(subject, FAIL, theirs, str(decision.detail.get("reason", "")))
        else:
            comparison.differ(subject, decision.decision, theirs, f"the legacy cron says: {row.error or 'nothing'}")
    return comparison
