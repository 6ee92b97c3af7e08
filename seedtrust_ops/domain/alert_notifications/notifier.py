"""Notifies people at once of CRITICAL and HIGH alerts: opened, severity raised, resolved; by email and to PostHog.

Each alert is marked as notified in the transaction that queues its notifications, so that a crash loses and repeats
none. MEDIUM and LOW alerts are in `digest`.
See docs/decisions/alerts.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func as sql
from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import severity_rank
from seedtrust_ops.domain.notifications.notification_kinds import ALERT_KINDS, ALERT_OPENED, ALERT_RESOLVED
from seedtrust_ops.domain.outbox.email_claims import NOTIFICATIONS_FAILING, alert_subject
from seedtrust_ops.domain.outbox.email_store import Email, enqueue_emails
from seedtrust_ops.domain.outbox.event_store import Destination, Event, enqueue_events
from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Alert

IMMEDIATE_SEVERITIES = (Severity.CRITICAL.value, Severity.HIGH.value)
MAX_ALERTS_PER_TICK = 50
_SUBJECTS_ABOUT_ALERT_EMAILS = {alert_subject(kind.name) for kind in ALERT_KINDS}


@dataclass(frozen=True)
class EnabledChannels:
    """The channels that are configured: `emails` is empty and a flag is False if that channel is not."""

    emails: tuple[str, ...]
    posthog: bool
    internal_api: bool


def notify_opened(session: Session, channels: EnabledChannels) -> int:
    """Notify people of urgent alerts that are new or whose severity has risen; return how many.

    Acknowledged alerts are skipped. At most MAX_ALERTS_PER_TICK are handled, the worst first.
    """
    is_worse = severity_rank(Alert.severity) > severity_rank(sql.coalesce(Alert.notified_severity, Alert.severity))
    alerts = session.scalars(
        select(Alert)
        .where(
            Alert.severity.in_(IMMEDIATE_SEVERITIES),
            Alert.acknowledged_at.is_(None),
            or_(Alert.notified_at.is_(None), Alert.resolved_at.is_(None) & is_worse),
        )
        .order_by(severity_rank(Alert.severity).desc(), Alert.id)
        .limit(MAX_ALERTS_PER_TICK)
        .with_for_update(skip_locked=True)
    ).all()
    _enqueue(session, channels, [_opened(alert) for alert in alerts])
    session.execute(
        update(Alert)
        .where(in_array(Alert.id, [alert.id for alert in alerts]))
        .values(notified_at=sql.now(), notified_severity=Alert.severity)
    )
    return len(alerts)


def notify_resolved(session: Session, channels: EnabledChannels) -> int:
    """Notify people that urgent alerts are resolved; return how many.

    Acknowledged alerts are marked as handled without a notification.
    """
    alerts = session.scalars(
        select(Alert)
        .where(
            Alert.resolved_at.is_not(None),
            Alert.notified_at.is_not(None),
            Alert.resolution_notified_at.is_(None),
            or_(Alert.notified_severity.in_(IMMEDIATE_SEVERITIES), Alert.acknowledged_at.is_not(None)),
        )
        .order_by(Alert.id)
        .limit(MAX_ALERTS_PER_TICK)
        .with_for_update(skip_locked=True)
    ).all()
    notifications = [_resolved(alert) for alert in alerts if alert.acknowledged_at is None]
    _enqueue(session, channels, notifications)
    session.execute(
        update(Alert).where(in_array(Alert.id, [alert.id for alert in alerts])).values(resolution_notified_at=sql.now())
    )
    return len(notifications)


def email_variables(alert: Alert) -> dict[str, Any]:
    """Return the alert's variables for the email templates; `resolved_at` only if it is resolved."""
    variables = {
        "rule": alert.rule,
        "subject": alert.subject,
        "severity": alert.severity,
        "opened_at": alert.opened_at.isoformat(),
        "detail": alert.detail,
    }
    return variables if alert.resolved_at is None else variables | {"resolved_at": alert.resolved_at.isoformat()}


@dataclass(frozen=True)
class _AlertNotification:
    """One notification about one alert, for all channels."""

    alert: Alert
    key: str
    email_kind: str
    event_name: str
    variables: dict[str, Any]


def _opened(alert: Alert) -> _AlertNotification:
    has_risen = alert.notified_at is not None
    change = f"rose-to-{alert.severity.lower()}" if has_risen else "opened"
    # An alert that is already resolved gets both notifications, one after the other.
    variables = {name: value for name, value in email_variables(alert).items() if name != "resolved_at"}
    return _AlertNotification(
        alert, f"alert:{alert.id}:{change}", ALERT_OPENED.name, "alert_opened", variables | {"has_risen": has_risen}
    )


def _resolved(alert: Alert) -> _AlertNotification:
    return _AlertNotification(
        alert, f"alert:{alert.id}:resolved", ALERT_RESOLVED.name, "alert_resolved", email_variables(alert)
    )


def _enqueue(session: Session, channels: EnabledChannels, notifications: Sequence[_AlertNotification]) -> None:
    enqueue_emails(
        session,
        [
            Email(f"{one.key}:{address}", one.email_kind, None, address, variables=one.variables)
            for one in notifications
            if not _is_about_alert_emails(one.alert)
            for address in channels.emails
        ],
    )
    if channels.posthog:
        enqueue_events(
            session,
            [
                Event(Destination.POSTHOG, one.key, {"event": one.event_name, "properties": _event_properties(one)})
                for one in notifications
            ],
        )


def _event_properties(notification: _AlertNotification) -> dict[str, Any]:
    """Return the event's properties without the detail, which may contain a name."""
    return {"alert_id": notification.alert.id} | {
        name: value for name, value in notification.variables.items() if name != "detail"
    }


def _is_about_alert_emails(alert: Alert) -> bool:
    """Return whether the alert says that alert emails fail: an email about it would fail and cause the next alert."""
    return alert.rule == NOTIFICATIONS_FAILING and alert.subject in _SUBJECTS_ABOUT_ALERT_EMAILS
