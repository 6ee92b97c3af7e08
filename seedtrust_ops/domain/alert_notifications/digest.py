"""The daily digest: one email per address about all MEDIUM and LOW alerts: new, still open, resolved.

There is at most one digest per day; if there is nothing to report, no email is queued. What a digest did not list, or
what was listed in a digest that was not sent, is new in the next one. CRITICAL and HIGH alerts are in `notifier`.
"""

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alert_notifications.notifier import OWED_AFTER_RESOLUTION, alert_variables
from seedtrust_ops.domain.alerts.channel_state import (
    IMMEDIATE_SEVERITIES,
    OPENED,
    RESOLVED,
    Channel,
    Delivery,
    read_deliveries,
    record_deliveries,
)
from seedtrust_ops.domain.alerts.store import is_acknowledged_now, severity_rank
from seedtrust_ops.domain.notifications.notification_kinds import ALERT_DIGEST
from seedtrust_ops.domain.outbox.store import Email, enqueue_emails
from seedtrust_ops.tables import Alert, Notification

MAX_LISTED_ALERTS = 50
"""The email lists at most this many alerts per section; the others are counted."""


def digest_day(now: datetime, zone: ZoneInfo, hour: int) -> date | None:
    """Return the day whose digest is due at `now` (aware): today in the office's time zone from `hour`:00 on."""
    local = now.astimezone(zone)
    return local.date() if local.time() >= time(hour) else None


def enqueue_digest(session: Session, emails: Sequence[str], day: date) -> int:
    """Queue the digest of `day` for each address, unless it was queued before; return how many emails were queued."""
    keys = [_outbox_key(day, address) for address in emails]
    if not keys or session.scalar(select(select(Notification.id).where(Notification.dedupe_key.in_(keys)).exists())):
        return 0
    sections = _read_sections(session, day)
    if not any(sections.values()):
        return 0
    variables = {
        name: [alert_variables(alert) for alert in listed[:MAX_LISTED_ALERTS]] for name, listed in sections.items()
    } | {
        "as_of": day.isoformat(),
        "left_out": sum(max(0, len(listed) - MAX_LISTED_ALERTS) for listed in sections.values()),
    }
    return enqueue_emails(
        session,
        [
            Email(key, ALERT_DIGEST.name, None, address, variables=variables)
            for key, address in zip(keys, emails, strict=True)
        ],
    )


def record_delivered_digests(session: Session, *, emails: Sequence[str], now: datetime) -> None:
    """Record which alerts were listed in the digests that were sent lately to one of `emails`; `now` is aware."""
    days = [now.date() - timedelta(days=number) for number in range(-1, OWED_AFTER_RESOLUTION.days + 1)]
    keys = [_outbox_key(day, address) for day in days for address in emails]
    sent = session.execute(
        select(Notification.sent_at, Notification.variables)
        .where(Notification.dedupe_key.in_(keys), Notification.sent_at.is_not(None))
        .order_by(Notification.sent_at)
    )
    record_deliveries(
        session,
        [
            Delivery(one["alert_id"], Channel.DIGEST, notification, one["severity"], one["occurrences"], row.sent_at)
            for row in sent
            for section, notification in (("opened", OPENED), ("resolved", RESOLVED))
            for one in row.variables[section]
            # A digest of an older release does not say which alerts it lists.
            if "alert_id" in one
        ],
    )


def _read_sections(session: Session, day: date) -> dict[str, list[Alert]]:
    alerts = session.scalars(
        select(Alert)
        .where(
            ~is_acknowledged_now(),
            Alert.severity.not_in(IMMEDIATE_SEVERITIES),
            or_(Alert.resolved_at.is_(None), Alert.resolved_at > day - OWED_AFTER_RESOLUTION),
        )
        .order_by(severity_rank(Alert.severity).desc(), Alert.id)
    ).all()
    listed = {
        alert_id: {row.notification for row in rows if row.channel == Channel.DIGEST}
        for alert_id, rows in read_deliveries(session, [alert.id for alert in alerts]).items()
    }
    is_open = [alert for alert in alerts if alert.resolved_at is None]
    return {
        "opened": [alert for alert in is_open if OPENED not in listed.get(alert.id, ())],
        "still_open": [alert for alert in is_open if OPENED in listed.get(alert.id, ())],
        "resolved": [
            alert for alert in alerts if alert.resolved_at is not None and RESOLVED not in listed.get(alert.id, ())
        ],
    }


def _outbox_key(day: date, address: str) -> str:
    return f"alert-digest:{day}:{address}"
