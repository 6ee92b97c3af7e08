"""Tells the internal API how component `jobs` is: down, degraded or up, by the worst urgent alert that is open.

A status is told when it differs from the last one that was; one that was not delivered yet gives way to it.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, func, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alert_notifications.notifier import AT_ONCE
from seedtrust_ops.domain.alerts.store import severity_rank
from seedtrust_ops.domain.outbox.event_store import Destination, Event, queue_events
from seedtrust_ops.ports.component_status import Component, Status
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Alert, OutgoingEvent

SUPERSEDED = "A newer status took its place."
NAMED = 10
_KEY = "status:jobs:after:"


def tell_component_status(session: Session) -> Status | None:
    """Queue the status of `jobs` where it is not the one told last; return it, or None where nothing is new."""
    alerts = session.execute(
        select(Alert.rule, Alert.subject, Alert.severity)
        .where(Alert.resolved_at.is_(None), Alert.severity.in_(AT_ONCE))
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
    # Named after the one before it: two ticks at once queue the same one.
    queue_events(session, [Event(Destination.INTERNAL_API, f"{_KEY}{last.id if last is not None else 0}", body)])
    return status


def _status(alerts: Sequence[Row[*tuple[Any, ...]]]) -> Status:
    if not alerts:
        return Status.UP
    return Status.DOWN if alerts[0].severity == Severity.CRITICAL.value else Status.DEGRADED


def _detail(alerts: Sequence[Row[*tuple[Any, ...]]]) -> str:
    if not alerts:
        return "No urgent alert is open."
    named = ", ".join(f"{one.severity} {one.rule} ({one.subject})" for one in alerts[:NAMED])
    more = f" and {len(alerts) - NAMED} more" if len(alerts) > NAMED else ""
    return f"Open alerts: {named}{more}."
