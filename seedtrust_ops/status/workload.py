"""Reads the workload from the application's database: batches, email, events, reports and alerts."""

from datetime import date
from typing import Any

from sqlalchemy import ColumnElement, case, exists, func, literal, or_, select, union_all
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.channel_state import (
    CHANNELS_TO_PEOPLE,
    IMMEDIATE_SEVERITIES,
    WATCHDOG_RULES,
    next_opening,
    read_deliveries,
)
from seedtrust_ops.domain.alerts.store import is_acknowledged_now
from seedtrust_ops.domain.outbox.email_sink import MAIL_SERVER, NOTIFICATIONS_FAILING
from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.domain.transfers.bank_feed import last_read_at
from seedtrust_ops.domain.transfers.batch_lifecycle import UNFINISHED_STATUSES
from seedtrust_ops.domain.transfers.evidence import State, is_awaiting_settlement, is_in_flight
from seedtrust_ops.domain.transfers.kill_switch import get_halt_reason
from seedtrust_ops.domain.transfers.leases import is_live
from seedtrust_ops.domain.transfers.settlement_deadlines import settles_on
from seedtrust_ops.severity import Severity
from seedtrust_ops.status.models import Backlog, BatchProgress, OpenAlert, Unnotified, Workload
from seedtrust_ops.tables import (
    Alert,
    BatchLease,
    HuntingtonBatch,
    HuntingtonTransaction,
    Notification,
    OutgoingEvent,
    ReportRequest,
    TransferEvidence,
)

MAX_BATCHES = 10
MAX_ALERTS = 20
REPORT_PENDING, REPORT_IN_PROGRESS = 1, 2


def read_workload(session: Session, *, halted_by_environment: bool) -> Workload:
    """Return the current workload."""
    in_flight = _read_in_flight(session)
    batches = session.execute(
        select(HuntingtonBatch.status, func.count()).group_by(HuntingtonBatch.status).order_by(HuntingtonBatch.status)
    )
    return Workload(
        halted_reason=get_halt_reason(session, halted_by_environment),
        batches={status: int(count) for status, count in batches},
        batches_in_progress=_read_batches(session),
        transfers_in_flight={what: number for what, number, _ in in_flight},
        cents_in_flight=sum(cents for _, _, cents in in_flight),
        settles_by=_read_settles_by(session),
        bank_read_at=last_read_at(session),
        emails=_read_backlog(
            session, Notification.created_at, Notification.status == "queued", Notification.status == "failed"
        ),
        events=_read_backlog(
            session,
            OutgoingEvent.created_at,
            OutgoingEvent.status == "queued",
            OutgoingEvent.status == "failed",
        ),
        reports=_read_backlog(
            session, ReportRequest.requested_at, ReportRequest.status == REPORT_PENDING, ReportRequest.status == 4
        ),
        reports_in_progress=session.scalar(
            select(func.count()).select_from(ReportRequest).where(ReportRequest.status == REPORT_IN_PROGRESS)
        )
        or 0,
        alerts=_read_alerts(session),
        alerts_open=session.scalar(select(func.count()).select_from(Alert).where(Alert.resolved_at.is_(None))) or 0,
        unnotified=_read_unnotified(session),
    )


def _read_in_flight(session: Session) -> list[tuple[str, int, int]]:
    """Return what is known of the transfers that have not settled, how many there are, and their cents."""
    what = case(
        (TransferEvidence.missing_since.is_not(None), "missing at the bank"),
        (TransferEvidence.state == State.CONTRADICTED, "contradicted by the bank"),
        (TransferEvidence.bank_transfer_id.is_(None), "with an unknown outcome"),
        else_="accepted by the bank",
    )
    by_evidence = (
        select(what.label("what"), TransferEvidence.amount_cents)
        .outerjoin(HuntingtonTransaction, HuntingtonTransaction.id == TransferEvidence.transaction_id)
        .where(or_(is_in_flight(), TransferEvidence.missing_since.is_not(None)))
    )
    # What the legacy worker sent before its first answer was recorded.
    without_evidence = select(literal("without evidence"), HuntingtonTransaction.amount_cents).where(
        HuntingtonTransaction.status.in_(("processing", "submitted")),
        ~exists(TransferEvidence.transaction_id).where(TransferEvidence.transaction_id == HuntingtonTransaction.id),
    )
    transfers = union_all(by_evidence, without_evidence).subquery("transfers")
    rows = session.execute(
        select(transfers.c.what, func.count(), func.sum(transfers.c.amount_cents))
        .group_by(transfers.c.what)
        .order_by(transfers.c.what)
    )
    return [(kind, int(number), int(cents)) for kind, number, cents in rows]


def _read_settles_by(session: Session) -> date | None:
    latest = session.execute(
        select(TransferEvidence.method, func.max(TransferEvidence.bank_created_at))
        .where(is_awaiting_settlement())
        .group_by(TransferEvidence.method)
    ).tuples()
    return max((settles_on(method, at) for method, at in latest if at is not None), default=None)


def _read_unnotified(session: Session) -> Unnotified:
    """Return what people should know by now and no channel that reaches people has delivered."""
    urgent = session.execute(
        select(Alert.id, Alert.severity, Alert.opened_at).where(
            Alert.resolved_at.is_(None),
            Alert.severity.in_(IMMEDIATE_SEVERITIES),
            Alert.rule.not_in(WATCHDOG_RULES),
            ~is_acknowledged_now(),
        )
    ).all()
    delivered = read_deliveries(session, [alert.id for alert in urgent])
    waiting = [
        alert.opened_at
        for alert in urgent
        if next_opening(
            alert.severity, [row for row in delivered.get(alert.id, ()) if row.channel in CHANNELS_TO_PEOPLE]
        )
    ]
    email_error = session.scalar(
        select(Alert.detail).where(
            Alert.rule == NOTIFICATIONS_FAILING, Alert.subject == MAIL_SERVER, Alert.resolved_at.is_(None)
        )
    )
    return Unnotified(len(waiting), min(waiting, default=None), email_error)


def _read_batches(session: Session) -> list[BatchProgress]:
    since = func.coalesce(HuntingtonBatch.queued_at, HuntingtonBatch.created_at)
    batches = session.execute(
        select(HuntingtonBatch.id, HuntingtonBatch.status, since.label("since"))
        .where(HuntingtonBatch.status.in_(("queued", "processing")))
        # `processing` sorts before `queued`: batches that are being sent come first.
        .order_by(HuntingtonBatch.status, since, HuntingtonBatch.id)
        .limit(MAX_BATCHES)
    ).all()
    batch_ids = [batch.id for batch in batches]
    of_batch = in_array(HuntingtonTransaction.batch_id, batch_ids)
    counted = session.execute(
        select(
            HuntingtonTransaction.batch_id,
            func.count().label("all"),
            func.count().filter(HuntingtonTransaction.status.not_in(UNFINISHED_STATUSES)).label("sent"),
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
    return [_batch_progress(batch, counts.get(batch.id), holders.get(batch.id)) for batch in batches]


def _batch_progress(batch: Any, counts: Any, held_by: str | None) -> BatchProgress:
    return BatchProgress(
        batch_id=batch.id,
        status=batch.status,
        since=batch.since,
        transactions=counts.all if counts else 0,
        sent=counts.sent if counts else 0,
        failed=counts.failed if counts else 0,
        cents=int(counts.cents) if counts else 0,
        held_by=held_by,
    )


def _read_backlog(
    session: Session, since: Any, is_pending: ColumnElement[bool], has_failed: ColumnElement[bool]
) -> Backlog:
    pending, oldest_at = session.execute(select(func.count(), func.min(since)).where(is_pending)).one()
    failed = session.scalar(select(func.count(since)).where(has_failed))
    return Backlog(pending, oldest_at, failed or 0)


def _read_alerts(session: Session) -> list[OpenAlert]:
    worst_first = case(
        *((Alert.severity == severity.value, position) for position, severity in enumerate(Severity)), else_=99
    )
    rows = session.execute(
        select(Alert, is_acknowledged_now())
        .where(Alert.resolved_at.is_(None))
        .order_by(is_acknowledged_now(), worst_first, Alert.opened_at)
        .limit(MAX_ALERTS)
    )
    return [
        OpenAlert(
            alert.id,
            alert.severity,
            alert.rule,
            alert.subject,
            alert.opened_at,
            alert.detail,
            # It is acknowledged even if the name is empty.
            (alert.acknowledged_by or "unknown") if is_acknowledged else None,
        )
        for alert, is_acknowledged in rows.tuples()
    ]
