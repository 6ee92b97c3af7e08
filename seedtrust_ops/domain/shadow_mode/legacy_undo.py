"""Undoes what the legacy system did since the last evaluation, only inside the transaction of a dry run.

The legacy system runs beside ours and often acts first; without this, a job in shadow mode would find its work done.
See docs/decisions/shadow-mode.md.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import case, func, or_, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.approvals.queries import APPROVED_BY_RULE
from seedtrust_ops.domain.reports.request_queue import EMAILED, IN_PROGRESS, PENDING
from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.domain.transfers.attempts import is_sent_by_us
from seedtrust_ops.tables import (
    Account,
    DisbursementRequest,
    HuntingtonBatch,
    HuntingtonTransaction,
    LedgerEntry,
    ReportRequest,
)


def undo_approvals(session: Session, *, like: str, since: datetime, statuses: Sequence[str]) -> None:
    """Return requests approved since then to pending.

    Args:
        session: of a dry run.
        like: an SQL LIKE pattern for `approved_by`.
        since: the earliest approval (UTC).
        statuses: the statuses that the requests may have now.
    """
    session.execute(
        update(DisbursementRequest)
        .where(
            DisbursementRequest.approved_by.like(like),
            DisbursementRequest.approved_at >= since,
            DisbursementRequest.status.in_(statuses),
        )
        .values(status="pending", approved_at=None, approved_by=None, paid_at=None)
    )


def undo_rule_approvals(session: Session, *, since: datetime) -> None:
    """Return what rules approved since then to pending. Paid requests stay: their money has left the account."""
    undo_approvals(session, like=f"{APPROVED_BY_RULE}%", since=since, statuses=["approved"])


def undo_reports(session: Session, undecided: Collection[int]) -> None:
    """Return these report requests to pending, and make all others unclaimable."""
    session.execute(
        update(ReportRequest)
        .where(or_(in_array(ReportRequest.id, undecided), ReportRequest.status.in_((PENDING, IN_PROGRESS))))
        .values(status=case((in_array(ReportRequest.id, undecided), PENDING), else_=EMAILED), started_at=None)
    )


def undo_batch(session: Session, batch_id: int) -> None:
    """Reset a batch to the state in which it was queued: nothing sent, posted or paid.

    Transfers that this project has sent stay as they are, and so do draft and held batches.
    """
    started = update(HuntingtonBatch).where(
        HuntingtonBatch.id == batch_id, HuntingtonBatch.status.not_in(("draft", "held", "queued"))
    )
    queued = started.values(status="queued", started_at=None, finished_at=None, error=None)
    if session.scalar(queued.returning(HuntingtonBatch.id)) is None:
        return
    of_the_batch = (
        HuntingtonTransaction.batch_id == batch_id,
        ~is_sent_by_us(HuntingtonTransaction.id),
    )
    paid = session.scalars(
        select(HuntingtonTransaction.disbursement_request_id).where(
            *of_the_batch, HuntingtonTransaction.status == "completed"
        )
    ).all()
    session.execute(
        update(HuntingtonTransaction)
        .where(*of_the_batch)
        .values(status="pending", failure_reason=None, bank_transfer_id=None, completed_at=None)
    )
    posted = (
        select(LedgerEntry.account_id, func.sum(LedgerEntry.amount_cents).label("cents"))
        .where(LedgerEntry.huntington_transaction_id.in_(select(HuntingtonTransaction.id).where(*of_the_batch)))
        .group_by(LedgerEntry.account_id)
        .subquery("posted")
    )
    session.execute(
        update(Account)
        .where(Account.id == posted.c.account_id)
        .values(balance_cents=Account.balance_cents - posted.c.cents)
    )
    session.execute(
        update(DisbursementRequest)
        .where(DisbursementRequest.status == "paid", in_array(DisbursementRequest.id, [one for one in paid if one]))
        # A request that was never approved must not look approved.
        .values(status=case((DisbursementRequest.approved_at.is_(None), "pending"), else_="approved"), paid_at=None)
    )
