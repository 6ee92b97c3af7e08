"""Brings the pending requests, the rules and the room to the decision, and records what it approves.

Runs of ours approve one at a time, so a limit holds exactly under two at once; the rules' rows are locked too, so
that nobody changes a rule while it approves.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import tzinfo

from sqlalchemy import BigInteger, TableValuedAlias, Text, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.approvals.queries import APPROVED_BY_RULE, clock, room_at, rules_of, waiting_requests
from seedtrust_ops.domain.approvals.rules import Approval, Request, decide
from seedtrust_ops.domain.approvals.writer import (
    ApprovalReport,
    is_approvable,
    one_approver_at_a_time,
    record_approvals,
    would_approve,
)
from seedtrust_ops.domain.sql_arrays import array_table
from seedtrust_ops.tables import DisbursementRequest


def approve_by_rules(session: Session, zone: tzinfo) -> ApprovalReport:
    """Approve every pending request that a rule matches now, and write the letters of all in one statement.

    Args:
        session: in a transaction of its own, of which nothing else has read yet.
        zone: the office's, whose calendar days the daily limits count.
    """
    one_approver_at_a_time(session)
    rules = rules_of(session, locked=True)
    moment = clock(session)
    approvals = list(decide(waiting_requests(session, rules), rules, room_at(session, moment, zone)))
    if not approvals:
        return ApprovalReport()
    decided = _as_rows(approvals)
    return record_approvals(
        session,
        update(DisbursementRequest)
        # What somebody changed since it was read is left for the next run.
        .where(
            DisbursementRequest.id == decided.c.id,
            DisbursementRequest.case_id == decided.c.case_id,
            DisbursementRequest.payee_id == decided.c.payee_id,
            DisbursementRequest.category == decided.c.category,
            DisbursementRequest.amount_cents == decided.c.amount_cents,
            *is_approvable(),
        )
        .values(status="approved", approved_at=moment, approved_by=decided.c.approved_by),
    )


def would_approve_by_rules(session: Session, zone: tzinfo) -> ApprovalReport:
    """Return what `approve_by_rules` would approve now; nothing is changed and nothing is locked."""
    rules = rules_of(session)
    approvals = list(decide(waiting_requests(session, rules), rules, room_at(session, clock(session), zone)))
    return would_approve(session, _as_rows(approvals)) if approvals else ApprovalReport()


@dataclass(frozen=True)
class Waiting:
    """Whether a run is worth its while."""

    first: Approval | None
    """The first approval that a run would make now; None where it would make none."""
    looked_at: int
    """How many requests that a rule could match were looked at to know that."""


def what_waits(session: Session, zone: tzinfo) -> Waiting:
    """Decide as a run would, up to its first approval; nothing is changed and nothing is locked."""
    looked_at = 0
    rules = rules_of(session)

    def counted() -> Iterator[Request]:
        nonlocal looked_at
        for request in waiting_requests(session, rules):
            looked_at += 1
            yield request

    first = next(decide(counted(), rules, room_at(session, clock(session), zone)), None)
    return Waiting(first, looked_at)


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
