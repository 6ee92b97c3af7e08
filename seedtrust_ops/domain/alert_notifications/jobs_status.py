"""Posts the status of component `jobs` to the internal API: down, degraded or up, by the worst urgent open alert.

A status is queued if it differs from the last one queued, and supersedes one that was not sent yet. It names the alerts
that it reflects, so that a delivered status is recorded as a notification of each.
See docs/decisions/alerts.md.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alert_notifications.notifier import OWED_AFTER_RESOLUTION
from seedtrust_ops.domain.alerts.channel_state import (
    IMMEDIATE_SEVERITIES,
    RESOLVED,
    Channel,
    Delivery,
    next_opening,
    read_deliveries,
    record_deliveries,
)
from seedtrust_ops.domain.alerts.store import is_acknowledged_now, severity_rank
from seedtrust_ops.domain.outbox.store import Destination, Event, abandon_all, enqueue_events
from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.ports.component_status import Component, Status
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Alert, AlertNotification, OutgoingEvent

SUPERSEDED = "Superseded by a newer status."
MAX_NAMED_ALERTS = 10
_KEY = "status:jobs:after:"
_IS_STATUS = (
    OutgoingEvent.destination == Destination.INTERNAL_API.value,
    OutgoingEvent.dedupe_key.startswith(_KEY),
)


def enqueue_jobs_status(session: Session) -> Status | None:
    """Queue the status of `jobs` if it differs from the last one queued; return it, or None if it has not changed."""
    alerts = session.execute(
        select(Alert.id, Alert.rule, Alert.subject, Alert.severity)
        .where(Alert.resolved_at.is_(None), Alert.severity.in_(IMMEDIATE_SEVERITIES))
        .order_by(severity_rank(Alert.severity).desc(), Alert.id)
    ).all()
    status = _status(alerts)
    content = {
        "component": Component.JOBS.value,
        "status": status.value,
        "latency_ms": None,
        "detail": _detail(alerts),
        "alerts": {str(one.id): one.severity for one in alerts},
    }
    last = session.scalars(select(OutgoingEvent).where(*_IS_STATUS).order_by(OutgoingEvent.id.desc()).limit(1)).first()
    if last is not None and last.status != "failed" and content.items() <= last.body.items():
        return None
    abandon_all(session, Destination.INTERNAL_API, SUPERSEDED, key_prefix=_KEY)
    body = {**content, "checked_at": datetime.now(UTC).isoformat()}
    # The key names the previous status, so that two concurrent ticks queue the same event once.
    enqueue_events(session, [Event(Destination.INTERNAL_API, f"{_KEY}{last.id if last is not None else 0}", body)])
    return status


def record_accepted_status(session: Session, body: Mapping[str, Any], queued_at: datetime) -> None:
    """Record which alerts opened, and which were resolved, according to a status that the internal API has accepted.

    It is called once per status, in the transaction that records that it was sent. `queued_at` is aware.
    """
    severities = body.get("alerts", {})
    named = session.scalars(select(Alert.id).where(in_array(Alert.id, [int(number) for number in severities]))).all()
    own = AlertNotification.alert_id == Alert.id, AlertNotification.channel == Channel.INTERNAL_API.value
    opened = select(AlertNotification.id).where(*own)
    resolved = session.scalars(
        select(Alert).where(
            Alert.resolved_at.between(func.now() - OWED_AFTER_RESOLUTION, queued_at),
            ~is_acknowledged_now(),
            opened.exists(),
            ~opened.where(AlertNotification.notification == RESOLVED).exists(),
        )
    ).all()
    delivered = read_deliveries(session, named)
    now = session.execute(select(func.now())).scalar_one()

    def opening(alert_id: int, severity: str) -> str | None:
        return next_opening(
            severity, [row for row in delivered.get(alert_id, ()) if row.channel == Channel.INTERNAL_API]
        )

    record_deliveries(
        session,
        [
            *(
                Delivery(number, Channel.INTERNAL_API, name, severities[str(number)], 1, now)
                for number in named
                if (name := opening(number, severities[str(number)])) is not None
            ),
            *(
                Delivery(alert.id, Channel.INTERNAL_API, RESOLVED, alert.severity, 1, now)
                for alert in resolved
                if alert.id not in named
            ),
        ],
    )


def _status(alerts: Sequence[Row[*tuple[Any, ...]]]) -> Status:
    if not alerts:
        return Status.UP
    return Status.DOWN if alerts[0].severity == Severity.CRITICAL.value else Status.DEGRADED


def _detail(alerts: Sequence[Row[*tuple[Any, ...]]]) -> str:
    if not alerts:
        return "No urgent alert is open."
    named = ", ".join(f"{alert.severity} {alert.rule} ({alert.subject})" for alert in alerts[:MAX_NAMED_ALERTS])
    more = f" and {len(alerts) - MAX_NAMED_ALERTS} more" if len(alerts) > MAX_NAMED_ALERTS else ""
    return f"Open alerts: {named}{more}."
