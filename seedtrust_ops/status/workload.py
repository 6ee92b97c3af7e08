"""Reads from the application's database how the work stands: batches, letters, reports, alerts."""

from typing import Any

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.domain.transfers.kill_switch import why_halted
from seedtrust_ops.domain.transfers.leases import is_live
from seedtrust_ops.severity import Severity
from seedtrust_ops.status.models import AlertStanding, BatchStanding, Waiting, WorkStanding
from seedtrust_ops.tables import (
    Alert,
    BatchLease,
    HuntingtonBatch,
    HuntingtonTransaction,
    Notification,
    OutgoingEvent,
    ReportRequest,
)

BATCHES_SHOWN = 10
ALERTS_SHOWN = 20
REPORT_PENDING, REPORT_IN_PROGRESS = 1, 2
UNSENT = ("pending", "processing")


def read_work(session: Session, *, halted_by_environment: bool) -> WorkStanding:
    """Return how the work stands."""
    in_flight = session.execute(
        select(HuntingtonTransaction.status, func.count(), func.sum(HuntingtonTransaction.amount_cents))
        .where(HuntingtonTransaction.status.in_(("processing", "submitted")))
        .group_by(HuntingtonTransaction.status)
        .order_by(HuntingtonTransaction.status)
    ).all()
    batches = session.execute(
        select(HuntingtonBatch.status, func.count()).group_by(HuntingtonBatch.status).order_by(HuntingtonBatch.status)
    )
    return WorkStanding(
        halted=why_halted(session, halted_by_environment),
        batches={status: int(number) for status, number in batches},
        on_their_way=_on_their_way(session),
        transactions_in_flight={status: int(number) for status, number, _ in in_flight},
        cents_in_flight=sum(int(cents) for _, _, cents in in_flight),
        letters=_waiting(
            session, Notification.created_at, Notification.status == "queued", Notification.status == "failed"
        ),
        events=_waiting(
            session,
            OutgoingEvent.created_at,
            OutgoingEvent.sent_at.is_(None) & OutgoingEvent.abandoned_at.is_(None),
            OutgoingEvent.abandoned_at.is_not(None),
        ),
        reports=_waiting(
            session, ReportRequest.requested_at, ReportRequest.status == REPORT_PENDING, ReportRequest.status == 4
        ),
        reports_under_way=session.scalar(
            select(func.count()).select_from(ReportRequest).where(ReportRequest.status == REPORT_IN_PROGRESS)
        )
        or 0,
        alerts=_alerts(session),
        alerts_open=session.scalar(select(func.count()).select_from(Alert).where(Alert.resolved_at.is_(None))) or 0,
    )


def _on_their_way(session: Session) -> list[BatchStanding]:
    since = func.coalesce(HuntingtonBatch.queued_at, HuntingtonBatch.created_at)
    batches = session.execute(
        select(HuntingtonBatch.id, HuntingtonBatch.status, since.label("since"))
        .where(HuntingtonBatch.status.in_(("queued", "processing")))
        # What is being sent comes first.
        .order_by(HuntingtonBatch.status, since, HuntingtonBatch.id)
        .limit(BATCHES_SHOWN)
    ).all()
    batch_ids = [batch.id for batch in batches]
    of_batch = in_array(HuntingtonTransaction.batch_id, batch_ids)
    counted = session.execute(
        select(
            HuntingtonTransaction.batch_id,
            func.count().label("all"),
            func.count().filter(HuntingtonTransaction.status.not_in(UNSENT)).label("sent"),
            func.count().filter(HuntingtonTransaction.status == "failed").label("failed"),
            func.sum(HuntingtonTransaction.amount_cents).label("cents"),
        )
        .where(of_batch)
        .group_by(HuntingtonTransaction.batch_id)
    )
    counts = {row.batch_id: row for row in counted}
    leases = session.execute(
        select(BatchLease.batch_id, BatchLease.holder).where(in_array(BatchLease.batch_id, batch_ids), is_live())
    )
    holders = {row.batch_id: row.holder for row in leases}
    return [_batch(batch, counts.get(batch.id), holders.get(batch.id)) for batch in batches]


def _batch(batch: Any, counts: Any, held_by: str | None) -> BatchStanding:
    return BatchStanding(
        batch_id=batch.id,
        status=batch.status,
        since=batch.since,
        transactions=counts.all if counts else 0,
        sent=counts.sent if counts else 0,
        failed=counts.failed if counts else 0,
        cents=int(counts.cents) if counts else 0,
        held_by=held_by,
    )


def _waiting(session: Session, since: Any, waits: ColumnElement[bool], has_failed: ColumnElement[bool]) -> Waiting:
    waiting, oldest_at = session.execute(select(func.count(), func.min(since)).where(waits)).one()
    failed = session.scalar(select(func.count(since)).where(has_failed))
    return Waiting(waiting, oldest_at, failed or 0)


def _alerts(session: Session) -> list[AlertStanding]:
    worst_first = case(
        *((Alert.severity == severity.value, place) for place, severity in enumerate(Severity)), else_=99
    )
    alerts = session.scalars(
        select(Alert)
        .where(Alert.resolved_at.is_(None))
        .order_by(Alert.acknowledged_at.is_not(None), worst_first, Alert.opened_at)
        .limit(ALERTS_SHOWN)
    )
    return [
        AlertStanding(
            alert.id,
            alert.severity,
            alert.rule,
            alert.subject,
            alert.opened_at,
            alert.detail,
            # Somebody did, even where the name is empty.
            (alert.acknowledged_by or "somebody") if alert.acknowledged_at is not None else None,
        )
        for alert in alerts
    ]
