"""Compares what our jobs would have sent, refused and recorded with the statuses that the legacy worker set.

A transaction that both of our jobs decided about counts once.
"""

from typing import Any

from sqlalchemy import exists, func, or_, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.shadow_mode.comparison.models import (
    Comparison,
    ComparisonPeriod,
    decisions_in,
    evaluated_period,
    in_settled_period,
    never_evaluated,
    subject_id,
)
from seedtrust_ops.domain.shadow_mode.decision_reader import RECORD_AS_UNKNOWN
from seedtrust_ops.domain.shadow_mode.transfer_dry_runs import ASK_FIRST, REFUSE, RETURN_TO_PENDING, SEND
from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.domain.transfers.legacy_takeover import is_false_failure
from seedtrust_ops.tables import HuntingtonBatch, HuntingtonTransaction, ShadowDecision

PROCESS, HEAL = "process_huntington_batch", "auto_heal_huntington_batches"
JOBS = f"{PROCESS}, {HEAL}"
REFUSED_BY_THE_BANK = frozenset({"invalid_account", "invalid_amount", "insufficient_funds", "limit_exceeded"})
"""bank_api.yaml: the failure codes of a transfer that was sent."""
_LATER_STATUSES = {"submitted": {"completed", "returned", "failed"}, "completed": {"returned"}}
"""The statuses that may follow the one that our job would have recorded."""


def compare_transactions(session: Session, period: ComparisonPeriod) -> Comparison:
    """Compare sending and auto-heal by the status of each transaction in the batches of the period."""
    sending, healing = evaluated_period(session, PROCESS, period), evaluated_period(session, HEAL, period)
    if sending is None and healing is None:
        return never_evaluated(JOBS)
    comparison = Comparison(JOBS)
    sends = _newest(session, PROCESS, sending)
    records = _newest(session, HEAL, healing)
    started = (
        in_settled_period(HuntingtonBatch.started_at, sending) if sending is not None else HuntingtonBatch.id.is_(None)
    )
    rows = session.execute(
        select(
            HuntingtonTransaction.id,
            HuntingtonTransaction.status,
            HuntingtonTransaction.failure_reason,
            is_false_failure(HuntingtonTransaction).label("is_false_failure"),
            func.coalesce(started, False).label("is_started"),
        )
        .join(HuntingtonBatch, HuntingtonBatch.id == HuntingtonTransaction.batch_id)
        .where(or_(in_array(HuntingtonTransaction.id, sends.keys() | records.keys()), started))
        .order_by(HuntingtonTransaction.id)
    )
    for row in rows:
        _compare(comparison, row, sends.get(row.id), records.get(row.id), period)
    if healing is not None:
        for decision in decisions_in(session, HEAL, healing):
            if decision.decision.startswith("open alert"):
                comparison.add_difference(
                    decision.subject, decision.decision, "nothing", str(decision.detail["detail"])
                )
        _compare_unknown_transfers(session, comparison)
    return comparison


def _compare_unknown_transfers(session: Session, comparison: Comparison) -> None:
    """List every transfer that would be unknown, whenever it was seen: the first reading goes back 90 days.

    What the legacy worker has recorded meanwhile is left out.
    """
    decisions = session.scalars(
        select(ShadowDecision)
        .where(
            ShadowDecision.job == HEAL,
            ShadowDecision.decision == RECORD_AS_UNKNOWN,
            ~exists().where(
                HuntingtonTransaction.bank_transfer_id == func.substr(ShadowDecision.subject, len("bank transfer ") + 1)
            ),
        )
        .order_by(ShadowDecision.first_seen_at, ShadowDecision.id)
    )
    for decision in decisions:
        detail = decision.detail
        comparison.add_difference(
            decision.subject,
            f"{RECORD_AS_UNKNOWN} ({detail['amount_cents']} cents, {detail['status']})",
            "nothing",
            f"no transaction explains it: {detail['problem']}",
        )


def _newest(session: Session, job: str, period: ComparisonPeriod | None) -> dict[int, ShadowDecision]:
    if period is None:
        return {}
    about = (one for one in decisions_in(session, job, period) if one.subject.startswith("transaction "))
    return {subject_id(one.subject): one for one in about if not one.decision.startswith("open alert")}


def _compare(
    comparison: Comparison,
    row: Any,
    send: ShadowDecision | None,
    record: ShadowDecision | None,
    period: ComparisonPeriod,
) -> None:
    subject, theirs = f"transaction {row.id}", _state(row)
    reasons = [
        reason for reason in (_sending_difference(row, send), _status_difference(row, record)) if reason is not None
    ]
    if not reasons:
        comparison.agreements += 1
    elif all(one.first_seen_at > period.settled for one in (send, record) if one is not None):
        comparison.pending += 1
    else:
        ours = ", then ".join(_summarize(one) for one in (send, record) if one is not None) or "nothing"
        comparison.add_difference(subject, ours, theirs, "; ".join(reasons))


def _sending_difference(row: Any, decision: ShadowDecision | None) -> str | None:
    """Return how the legacy worker's sending differs from ours, or None if it does not."""
    was_sent = row.status in ("submitted", "completed", "returned") or row.failure_reason in REFUSED_BY_THE_BANK
    if decision is None:
        return "ours has not evaluated its batch: check the runs of the job" if row.is_started else None
    if decision.decision == REFUSE:
        return f"ours refuses it: {decision.detail.get('reason')}" if was_sent else None
    if decision.decision == ASK_FIRST or was_sent:
        return None
    if row.is_false_failure:
        return "the legacy worker set it to failed without a response from the bank"
    if row.status == "failed":
        return "the legacy worker did not send it"
    return "the legacy worker has not finished it"


def _status_difference(row: Any, decision: ShadowDecision | None) -> str | None:
    """Return how the status differs from the bank's, or None if it does not."""
    if decision is None:
        return None
    if decision.decision == RETURN_TO_PENDING:
        return "the bank does not know it, so it was never sent" if row.status == "failed" else None
    if row.status == decision.decision:
        return None
    if row.status in _LATER_STATUSES.get(decision.decision, ()) and not row.is_false_failure:
        return None
    return f"the bank reports {decision.decision}"


def _summarize(decision: ShadowDecision) -> str:
    detail = decision.detail
    if decision.decision == SEND:
        return f"send {detail['amount_cents']} cents by {detail['method']}"
    if decision.decision in (REFUSE, ASK_FIRST):
        return decision.decision
    return f"record '{decision.decision}'"


def _state(row: Any) -> str:
    return f"'{row.status}'" + (f" ({row.failure_reason})" if row.failure_reason else "")
