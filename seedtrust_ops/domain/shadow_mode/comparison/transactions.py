"""Sets what ours would have sent, refused and recorded beside the states that the legacy worker gave transactions.

A transaction of which both jobs have something to say is one agreement or one difference.
"""

from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.shadow_mode.comparison.models import (
    Comparison,
    Period,
    decisions_of,
    looked_at,
    never_looked,
    number_in,
    within,
)
from seedtrust_ops.domain.shadow_mode.transfer_dry_runs import ASK_FIRST, PENDING_AGAIN, REFUSE, SEND
from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.domain.transfers.preflight import is_false_failure
from seedtrust_ops.tables import HuntingtonBatch, HuntingtonTransaction, ShadowDecision

PROCESS, HEAL = "process_huntington_batch", "auto_heal_huntington_batches"
JOBS = f"{PROCESS}, {HEAL}"
REFUSED_BY_THE_BANK = frozenset({"invalid_account", "invalid_amount", "insufficient_funds", "limit_exceeded"})
"""bank_api.yaml: what a transfer fails with that was sent."""
_WENT_ON_FROM = {"submitted": {"completed", "returned", "failed"}, "completed": {"returned"}}
"""What the legacy worker may have made of a transaction since ours would have recorded a status."""


def compare_transactions(session: Session, period: Period) -> Comparison:
    """Compare sending and healing by the status of each transaction of the period's batches."""
    sending, healing = looked_at(session, PROCESS, period), looked_at(session, HEAL, period)
    if sending is None and healing is None:
        return never_looked(JOBS)
    comparison = Comparison(JOBS)
    sends = _newest(session, PROCESS, sending)
    records = _newest(session, HEAL, healing)
    begun = within(HuntingtonBatch.started_at, sending) if sending is not None else HuntingtonBatch.id.is_(None)
    rows = session.execute(
        select(
            HuntingtonTransaction.id,
            HuntingtonTransaction.status,
            HuntingtonTransaction.failure_reason,
            is_false_failure(HuntingtonTransaction).label("is_false_failure"),
            func.coalesce(begun, False).label("is_begun"),
        )
        .join(HuntingtonBatch, HuntingtonBatch.id == HuntingtonTransaction.batch_id)
        .where(or_(in_array(HuntingtonTransaction.id, sends.keys() | records.keys()), begun))
        .order_by(HuntingtonTransaction.id)
    )
    for row in rows:
        _compare(comparison, row, sends.get(row.id), records.get(row.id), period)
    if healing is not None:
        for decision in decisions_of(session, HEAL, healing):
            if decision.decision.startswith("open alert"):
                comparison.differ(decision.subject, decision.decision, "nothing", str(decision.detail["detail"]))
    return comparison


def _newest(session: Session, job: str, period: Period | None) -> dict[int, ShadowDecision]:
    if period is None:
        return {}
    about = (one for one in decisions_of(session, job, period) if one.subject.startswith("transaction "))
    return {number_in(one.subject): one for one in about if not one.decision.startswith("open alert")}


def _compare(
    comparison: Comparison, row: Any, send: ShadowDecision | None, record: ShadowDecision | None, period: Period
) -> None:
    subject, theirs = f"transaction {row.id}", _state(row)
    reasons = [reason for reason in (_of_sending(row, send), _of_recording(row, record)) if reason is not None]
    if not reasons:
        comparison.agreements += 1
    elif all(one.first_seen_at > period.settled for one in (send, record) if one is not None):
        comparison.waiting += 1
    else:
        ours = ", then ".join(_in_words(one) for one in (send, record) if one is not None) or "nothing"
        comparison.differ(subject, ours, theirs, "; ".join(reasons))


def _of_sending(row: Any, decision: ShadowDecision | None) -> str | None:
    """Return how the legacy's sending differs from ours, None where it does not."""
    was_sent = row.status in ("submitted", "completed", "returned") or row.failure_reason in REFUSED_BY_THE_BANK
    if decision is None:
        return "ours has not looked at its batch: see the runs of its job" if row.is_begun else None
    if decision.decision == REFUSE:
        return f"ours refuses it: {decision.detail.get('reason')}" if was_sent else None
    if decision.decision == ASK_FIRST or was_sent:
        return None
    if row.is_false_failure:
        return "the legacy worker took it for failed without the bank's word"
    if row.status == "failed":
        return "the legacy worker did not send it"
    return "the legacy worker has not come to its end"


def _of_recording(row: Any, decision: ShadowDecision | None) -> str | None:
    """Return how the state differs from what the bank says, None where it does not."""
    if decision is None:
        return None
    if decision.decision == PENDING_AGAIN:
        return "the bank does not know it, so it was never sent" if row.status == "failed" else None
    if row.status == decision.decision:
        return None
    if row.status in _WENT_ON_FROM.get(decision.decision, ()) and not row.is_false_failure:
        return None
    return f"the bank says that it is {decision.decision}"


def _in_words(decision: ShadowDecision) -> str:
    detail = decision.detail
    if decision.decision == SEND:
        return f"send {detail['amount_cents']} cents by {detail['method']}"
    if decision.decision in (REFUSE, ASK_FIRST):
        return decision.decision
    return f"record '{decision.decision}'"


def _state(row: Any) -> str:
    return f"'{row.status}'" + (f" ({row.failure_reason})" if row.failure_reason else "")
