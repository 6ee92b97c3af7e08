"""Queues the daily digest: one email per address about all MEDIUM and LOW alerts: new, still open, resolved.

There is at most one digest per day; if there is nothing to report, no email is queued. CRITICAL and HIGH alerts are in
`notifier`.
"""

from collections.abc import Sequence
from datetime import date, datetime, time
from zoneinfo import ZoneInfo

from sqlalchemy import case, or_, select, update
from sqlalchemy import func as sql
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alert_notifications.notifier import email_variables
from seedtrust_ops.domain.alerts.store import severity_rank
from seedtrust_ops.domain.notifications.notification_kinds import ALERT_DIGEST
from seedtrust_ops.domain.outbox.email_store import Email, enqueue_emails
from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Alert, Notification

DIGEST_SEVERITIES = (Severity.MEDIUM.value, Severity.LOW.value)
MAX_LISTED_ALERTS = 50
"""The email lists at most this many alerts per section; the others are counted."""


def digest_day(now: datetime, zone: ZoneInfo, hour: int) -> date | None:
    """Return the day whose digest is due at `now` (aware): today in the office's time zone from `hour`:00 on."""
    local = now.astimezone(zone)
    return local.date() if local.time() >= time(hour) else None


def notify_digest(session: Session, emails: Sequence[str], day: date) -> int:
    """Queue the digest of `day` for each address, unless it was queued before; return how many emails were queued."""
    keys = {address: f"alert-digest:{day}:{address}" for address in emails}
    if not keys or session.scalar(
        select(select(Notification.id).where(Notification.dedupe_key.in_(list(keys.values()))).exists())
    ):
        return 0
    alerts = session.scalars(
        select(Alert)
        .where(
            Alert.acknowledged_at.is_(None),
            or_(
                Alert.resolved_at.is_(None) & Alert.severity.in_(DIGEST_SEVERITIES),
                Alert.resolved_at.is_not(None)
                & Alert.resolution_notified_at.is_(None)
                & sql.coalesce(Alert.notified_severity, Alert.severity).in_(DIGEST_SEVERITIES),
            ),
        )
        .order_by(severity_rank(Alert.severity).desc(), Alert.id)
        .with_for_update()
    ).all()
    if not alerts:
        return 0
    sections = {
        "opened": [alert for alert in alerts if alert.resolved_at is None and alert.notified_at is None],
        "still_open": [alert for alert in alerts if alert.resolved_at is None and alert.notified_at is not None],
        "resolved": [alert for alert in alerts if alert.resolved_at is not None],
    }
    variables = {
        name: [email_variables(alert) for alert in listed[:MAX_LISTED_ALERTS]] for name, listed in sections.items()
    } | {
        "as_of": day.isoformat(),
        "left_out": sum(max(0, len(listed) - MAX_LISTED_ALERTS) for listed in sections.values()),
    }
    session.execute(
        update(Alert)
        .where(in_array(Alert.id, [alert.id for alert in alerts]))
        .values(
            notified_at=sql.coalesce(Alert.notified_at, sql.now()),
            notified_severity=sql.coalesce(Alert.notified_severity, Alert.severity),
            resolution_notified_at=case((Alert.resolved_at.is_not(None), sql.now())),
        )
    )
    return enqueue_emails(
        session,
        [Email(key, ALERT_DIGEST.name, None, address, variables=variables) for address, key in keys.items()],
    )
