"""Reads decisions from the transaction of a dry run: the rows that the job's own code has just written there."""

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.shadow_mode.decisions import Decision
from seedtrust_ops.domain.shadow_mode.rollback_session import written_in_this_transaction
from seedtrust_ops.domain.transfers.unknown_transfers import UNKNOWN_TRANSFER_RULE
from seedtrust_ops.tables import Alert, BalanceAlert, DisbursementRequest, Notification, UnknownTransfer

APPROVE = "approve"
SEND_EMAIL = "send email"
RECORD_AS_UNKNOWN = "record as unknown"


def read_approvals(session: Session) -> Iterator[Decision]:
    """Yield the approval of each request approved in this transaction, and its emails."""
    rows = session.execute(
        select(DisbursementRequest.id, DisbursementRequest.amount_cents, DisbursementRequest.approved_by)
        .where(DisbursementRequest.status == "approved", written_in_this_transaction(DisbursementRequest))
        .order_by(DisbursementRequest.id)
    )
    for row in rows:
        detail = {"approved_by": row.approved_by, "amount_cents": row.amount_cents}
        yield Decision(f"request {row.id}", f"{APPROVE} by {row.approved_by}", detail)
    yield from read_emails(session)


def read_emails(session: Session) -> Iterator[Decision]:
    """Yield each email enqueued in this transaction, by its dedupe key."""
    rows = session.execute(
        select(Notification.dedupe_key, Notification.kind, Notification.recipient_id)
        .where(written_in_this_transaction(Notification))
        .order_by(Notification.id)
    )
    for row in rows:
        yield Decision(row.dedupe_key, SEND_EMAIL, {"kind": row.kind, "recipient_id": row.recipient_id})


def read_balance_alerts(session: Session) -> Iterator[Decision]:
    """Yield each balance alert opened, changed or resolved in this transaction."""
    rows = session.execute(
        select(BalanceAlert.account_id, BalanceAlert.shortfall_cents, BalanceAlert.resolved_at)
        .where(written_in_this_transaction(BalanceAlert))
        .order_by(BalanceAlert.id)
    )
    for row in rows:
        decision = "open balance alert" if row.resolved_at is None else "resolve balance alert"
        yield Decision(f"account {row.account_id}", decision, {"shortfall_cents": row.shortfall_cents})


def read_unknown_transfers(session: Session) -> Iterator[Decision]:
    """Yield each transfer at the bank that nothing explained in this transaction."""
    rows = session.execute(
        select(
            UnknownTransfer.bank_transfer_id,
            UnknownTransfer.status,
            UnknownTransfer.amount_cents,
            UnknownTransfer.problem,
        )
        .where(written_in_this_transaction(UnknownTransfer), UnknownTransfer.explained_at.is_(None))
        .order_by(UnknownTransfer.first_seen_at, UnknownTransfer.bank_transfer_id)
    )
    for row in rows:
        detail = {"status": row.status, "amount_cents": row.amount_cents, "problem": row.problem}
        yield Decision(f"bank transfer {row.bank_transfer_id}", RECORD_AS_UNKNOWN, detail)


def read_alerts(session: Session) -> Iterator[Decision]:
    """Yield each alert opened in this transaction, except those that `read_unknown_transfers` already says."""
    rows = session.execute(
        select(Alert.rule, Alert.subject, Alert.detail)
        .where(written_in_this_transaction(Alert), Alert.resolved_at.is_(None), Alert.rule != UNKNOWN_TRANSFER_RULE)
        .order_by(Alert.id)
    )
    for row in rows:
        yield Decision(row.subject, f"open alert {row.rule}", {"detail": row.detail})
