"""Loads the pending requests, the rules and the remaining limits, lets `rules` decide, and records the approvals.

Only one run approves at a time, so limits hold exactly under concurrency. The rule rows are locked as well, so that no
one can change a rule while it approves.
See docs/decisions/approvals.md.
"""

from collections.abc import Iterable
from datetime import tzinfo

from sqlalchemy import BigInteger, TableValuedAlias, Text, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.approvals.queries import (
    APPROVED_BY_RULE,
    database_time,
    load_rules,
    pending_requests,
    remaining_limits,
)
from seedtrust_ops.domain.approvals.rules import Approval, decide
from seedtrust_ops.domain.approvals.writer import (
    ApprovalReport,
    is_approvable,
    lock_approvals,
    preview_approvals,
    record_approvals,
    record_separately,
)
from seedtrust_ops.domain.sql_arrays import array_table
from seedtrust_ops.tables import DisbursementRequest


def approve_by_rules(session: Session, zone: tzinfo, *, separately: bool = False) -> ApprovalReport:
    """Approve every pending request that a rule matches now and queue the emails, all in one statement.

    Args:
        session: in its own transaction, in which nothing has been read yet.
        zone: the office's time zone; daily limits apply to its calendar days.
        separately: whether to leave out, and name, requests of which a row is locked or refused.
    """
    lock_approvals(session)
    rules = load_rules(session, locked=True)
    approved_at = database_time(session)
    limits = remaining_limits(session, approved_at, zone)
    approvals = list(decide(pending_requests(session, rules, limits), rules, limits))
    if not approvals:
        return ApprovalReport()
    decided = _as_rows(approvals)
    approve = (
        update(DisbursementRequest)
        # A request that was changed since it was read is left for the next run.
        .where(
            DisbursementRequest.id == decided.c.id,
            DisbursementRequest.case_id == decided.c.case_id,
            DisbursementRequest.payee_id == decided.c.payee_id,
            DisbursementRequest.category == decided.c.category,
            DisbursementRequest.amount_cents == decided.c.amount_cents,
            *is_approvable(),
        )
        .values(status="approved", approved_at=approved_at, approved_by=decided.c.approved_by)
    )
    if not separately:
        return record_approvals(session, approve)
    return record_separately(session, approve, sorted(one.request.id for one in approvals))


def preview_by_rules(session: Session, zone: tzinfo) -> ApprovalReport:
    """Return what `approve_by_rules` would approve now, without changing or locking anything."""
    rules = load_rules(session)
    limits = remaining_limits(session, database_time(session), zone)
    approvals = list(decide(pending_requests(session, rules, limits), rules, limits))
    return preview_approvals(session, _as_rows(approvals)) if approvals else ApprovalReport()


def find_first_approval(session: Session, zone: tzinfo) -> Approval | None:
    """Return the first approval that a run would make now, or None, without changing or locking anything."""
    rules = load_rules(session)
    limits = remaining_limits(session, database_time(session), zone)
    return next(decide(pending_requests(session, rules, limits), rules, limits), None)


def _as_rows(approvals: Iterable[Approval]) -> TableValuedAlias:
    return array_table(
        "decided",
        [
            ("id", BigInteger()),
            ("case_id", BigInteger()),
            ("payee_id", BigInteger()),
            ("category", Text()),
            ("amount_cents", BigInteger()),
            ("approved_by", Text()),
        ],
        [
            (
                approval.request.id,
                approval.request.case_id,
                approval.request.payee_id,
                approval.request.category,
                approval.request.amount_cents,
                f"{APPROVED_BY_RULE}{approval.rule.id}",
            )
            for approval in approvals
        ],
    )
