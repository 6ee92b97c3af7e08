"""Reads decisions out of a rehearsal's transaction: the rows that the job's own code has just written there."""

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.shadow_mode.decisions import Decision
from seedtrust_ops.domain.shadow_mode.rollback_session import written_here
from seedtrust_ops.tables import Alert, BalanceAlert, DisbursementRequest, Notification

APPROVE = "approve"
WRITE_LETTER = "write letter"


def approvals(session: Session) -> Iterator[Decision]:
    """Yield the approval of each request that was approved in this transaction, and its letters."""
    rows = session.execute(
        select(DisbursementRequest.id, DisbursementRequest.amount_cents, DisbursementRequest.approved_by)
        .where(DisbursementRequest.status == "approved", written_here(DisbursementRequest))
        .order_by(DisbursementRequest.id)
    )
    for row in rows:
        detail = {"approved_by": row.approved_by, "amount_cents": row.amount_cents}
        yield Decision(f"request {row.id}", f"{APPROVE} by {row.approved_by}", detail)
    yield from letters(session)


def letters(session: Session) -> Iterator[Decision]:
    """Yield each letter that was written in this transaction, under its dedupe key."""
    rows = session.execute(
        select(Notification.dedupe_key, Notification.kind, Notification.recipient_id)
        .where(written_here(Notification))
        .order_by(Notification.id)
    )
    for row in rows:
        yield Decision(row.dedupe_key, WRITE_LETTER, {"kind": row.kind, "recipient_id": row.recipient_id})


def balance_alerts(session: Session) -> Iterator[Decision]:
    """Yield each balance alert that was opened, changed or resolved in this transaction."""
    rows = session.execute(
        select(BalanceAlert.account_id, BalanceAlert.shortfall_cents, BalanceAlert.resolved_at)
        .where(written_here(BalanceAlert))
        .order_by(BalanceAlert.id)
    )
    for row in rows:
        decision = "open balance alert" if row.resolved_at is None else "resolve balance alert"
        yield Decision(f"account {row.account_id}", decision, {"shortfall_cents": row.shortfall_cents})


def alerts(session: Session) -> Iterator[Decision]:
    """Yield each alert that was opened in this transaction."""
    rows = session.execute(
        select(Alert.rule, Alert.subject, Alert.detail)
        .where(written_here(Alert), Alert.resolved_at.is_(None))
        .order_by(Alert.id)
    )
    for row in rows:
        yield Decision(row.subject, f"open alert {row.rule}", {"detail": row.detail})
