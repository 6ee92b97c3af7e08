"""Queues the status of component `jobs` for the internal API: down, degraded or up, by the worst urgent open alert.

A status is queued if it differs from the last one queued, and supersedes one that was not sent yet.
See docs/decisions/alerts.md.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, func, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alert_notifications.notifier import IMMEDIATE_SEVERITIES
from seedtrust_ops.domain.alerts.store import severity_rank
from seedtrust_ops.domain.outbox.event_store import Destination, Event, enqueue_events
from seedtrust_ops.ports.component_status import Component, Status
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Alert, OutgoingEvent

SUPERSEDED = "Superseded by a newer status."
MAX_NAMED_ALERTS = 10
_KEY = "status:jobs:after:"


def enqueue_jobs_status(session: Session) -> Status | None:
    """Queue the status of `jobs` if it differs from the last one queued; return it, or None if it has not changed."""
    alerts = session.execute(
        select(Alert.rule, Alert.subject, Alert.severity)
        .where(Alert.resolved_at.is_(None), Alert.severity.in_(IMMEDIATE_SEVERITIES))
        .order_by(severity_rank(Alert.severity).desc(), Alert.id)
    ).all()
    status, detail = _status(alerts), _detail(alerts)
    last = session.scalars(
        select(OutgoingEvent)
        .where(OutgoingEvent.destination == Destination.INTERNAL_API.value, OutgoingEvent.dedupe_key.startswith(_KEY))
        .order_by(OutgoingEvent.id.desc())
        .limit(1)
    ).first()
    if (
        last is not None
        and last.abandoned_at is None
        and (last.body["status"], last.body["detail"]) == (status, detail)
    ):
        return None
    session.execute(
        update(OutgoingEvent)
        .where(
            OutgoingEvent.destination == Destination.INTERNAL_API.value,
            OutgoingEvent.dedupe_key.startswith(_KEY),
            OutgoingEvent.sent_at.is_(None),
            OutgoingEvent.abandoned_at.is_(None),
        )
        .values(abandoned_at=func.now(), last_error=SUPERSEDED)
    )
    body = {
        "component": Component.JOBS.value,
        "status": status.value,
        "latency_ms": None,
        "checked_at": datetime.now(UTC).isoformat(),
        "detail": detail,
    }
    # The key names the previous status, so that two concurrent ticks queue the same event once.
    enqueue_events(session, [Event(Destination.INTERNAL_API, f"{_KEY}{last.id if last is not None else 0}", body)])
    return status


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
