"""Compares the reports that our job would have generated with the statuses that the legacy cron set."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.reports.request_queue import EMAILED, FAILED, IN_PROGRESS, PENDING
from seedtrust_ops.domain.shadow_mode.comparison.models import (
    Comparison,
    ComparisonPeriod,
    decisions_in,
    evaluated_period,
    in_settled_period,
    never_evaluated,
    subject_id,
)
from seedtrust_ops.domain.shadow_mode.report_dry_runs import FAIL, GENERATE
from seedtrust_ops.tables import ReportRequest

JOB = "report_generation"
_STATES = {PENDING: "left it pending", IN_PROGRESS: "left it in progress", EMAILED: "emailed it", FAILED: "failed it"}


def compare_reports(session: Session, period: ComparisonPeriod) -> Comparison:
    """Compare by the status of each request of the period: generated with emailed, failed with failed."""
    covered = evaluated_period(session, JOB, period)
    if covered is None:
        return never_evaluated(JOB)
    comparison = Comparison(JOB)
    ours = {subject_id(one.subject): one for one in decisions_in(session, JOB, covered)}
    rows = session.execute(
        select(ReportRequest.id, ReportRequest.kind, ReportRequest.status, ReportRequest.error)
        .where(in_settled_period(ReportRequest.requested_at, covered))
        .order_by(ReportRequest.id)
    )
    for row in rows:
        subject, theirs = f"report request {row.id}", _STATES[row.status]
        decision = ours.get(row.id)
        if decision is None:
            if row.status in (EMAILED, FAILED):
                comparison.add_difference(
                    subject, "nothing", theirs, "ours has not evaluated it: check the runs of the job"
                )
            else:
                comparison.pending += 1
        elif (decision.decision, row.status) in ((GENERATE, EMAILED), (FAIL, FAILED)):
            comparison.agreements += 1
        elif row.status in (PENDING, IN_PROGRESS):
            comparison.add_difference(subject, decision.decision, theirs, "the legacy cron did not finish it")
        elif decision.decision == FAIL:
            comparison.add_difference(subject, FAIL, theirs, str(decision.detail.get("reason", "")))
        else:
            comparison.add_difference(
                subject, decision.decision, theirs, f"the legacy cron recorded: {row.error or 'no error'}"
            )
    return comparison
