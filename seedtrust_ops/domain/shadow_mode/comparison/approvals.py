"""Compares our approvals with the legacy ones: by date (cron) and by rule (bulk auto-approver)."""

from collections import defaultdict
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.approvals.by_date import APPROVED_BY_DATE, FIRST_DATE
from seedtrust_ops.domain.approvals.queries import APPROVED_BY_RULE
from seedtrust_ops.domain.approvals.writer import Payee
from seedtrust_ops.domain.shadow_mode.comparison.models import (
    Comparison,
    ComparisonPeriod,
    decisions_in,
    evaluated_period,
    in_settled_period,
    never_evaluated,
    subject_id,
)
from seedtrust_ops.domain.shadow_mode.decision_reader import APPROVE
from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.tables import Case, DisbursementRequest, ShadowDecision

BY_DATE, BY_RULE = "dr_auto_approval", "rule_based_approval"
_APPROVED_BY = {BY_DATE: APPROVED_BY_DATE, BY_RULE: f"{APPROVED_BY_RULE}%"}


def compare_approvals(session: Session, job: str, period: ComparisonPeriod) -> Comparison:
    """Compare one of the two approving jobs, by `approved_at` and `approved_by`."""
    covered = evaluated_period(session, job, period)
    if covered is None:
        return never_evaluated(job)
    comparison = Comparison(job)
    ours: defaultdict[int, list[ShadowDecision]] = defaultdict(list)
    for decision in decisions_in(session, job, covered):
        if decision.decision.startswith(APPROVE):
            ours[subject_id(decision.subject)].append(decision)
    pattern = _APPROVED_BY[job]
    theirs = _requests(
        session,
        DisbursementRequest.approved_by.like(pattern) & in_settled_period(DisbursementRequest.approved_at, covered),
    )
    others = _requests(session, in_array(DisbursementRequest.id, set(ours) - set(theirs)))
    for request_id, row in sorted((theirs | others).items()):
        subject = f"request {request_id}"
        approved_by = [one.detail["approved_by"] for one in ours.get(request_id, ())]
        if row.approved_by in approved_by:
            comparison.agreements += 1
        elif not approved_by:
            comparison.add_difference(subject, "not approve it", f"approved by {row.approved_by}", _why_not(row))
        elif request_id in theirs:
            why = "both approved it, for different reasons"
            comparison.add_difference(subject, f"approve by {approved_by[-1]}", f"approved by {row.approved_by}", why)
        elif ours[request_id][0].first_seen_at > covered.settled:
            comparison.pending += 1
        else:
            since = f"{ours[request_id][0].first_seen_at:%Y-%m-%d %H:%M} UTC"
            comparison.add_difference(
                subject, f"approve by {approved_by[-1]}", _state(row), f"ours would have approved it since {since}"
            )
    return comparison


def _requests(session: Session, condition: Any) -> dict[int, Any]:
    rows = session.execute(
        select(
            DisbursementRequest.id,
            DisbursementRequest.status,
            DisbursementRequest.on_hold,
            DisbursementRequest.auto_authorize_at,
            DisbursementRequest.approved_at,
            DisbursementRequest.approved_by,
            Case.status.label("case_status"),
            Payee.is_active.label("payee_is_active"),
        )
        .join(Case, Case.id == DisbursementRequest.case_id)
        .join(Payee, Payee.id == DisbursementRequest.payee_id)
        .where(condition)
    )
    return {row.id: row for row in rows}


def _state(row: Any) -> str:
    if row.approved_by is None:
        return f"left it {row.status}"
    return f"{row.status}; approved by {row.approved_by} at {row.approved_at:%Y-%m-%d %H:%M} UTC"


def _why_not(row: Any) -> str:
    """Return why our job did not approve what the legacy system approved, judging by the rows as they are now."""
    if row.on_hold:
        return "it is on hold"
    if row.case_status == "closed":
        return "its case is closed"
    if not row.payee_is_active:
        return "its payee is inactive"
    if row.status in ("denied", "cancelled"):
        return f"it was {row.status} before our evaluation"
    if row.approved_by != APPROVED_BY_DATE:
        return f"no rule approves it: see `seedtrust-ops rules explain {row.id}`"
    if row.auto_authorize_at is None:
        return "it has no automatic approval date"
    if row.auto_authorize_at < FIRST_DATE:
        return f"its date, {row.auto_authorize_at:%Y-%m-%d %H:%M} UTC, is a typing error: only a person may approve it"
    if row.auto_authorize_at > row.approved_at:
        return f"its date, {row.auto_authorize_at:%Y-%m-%d %H:%M} UTC, had not been reached"
    return "it was on hold, or its case or payee was different, at our evaluation"
