"""Writes the day's digest: one letter to each address about all MEDIUM and LOW alerts, new, lasting and over.

A day has one digest, whenever it is written; where there is nothing to tell, no letter.
"""

from collections.abc import Sequence
from datetime import date, datetime, time
from zoneinfo import ZoneInfo

from sqlalchemy import case, or_, select, update
from sqlalchemy import func as sql
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alert_notifications.notifier import in_a_letter
from seedtrust_ops.domain.alerts.store import severity_rank
from seedtrust_ops.domain.notifications.notification_kinds import ALERT_DIGEST
from seedtrust_ops.domain.outbox.email_store import Email, enqueue_emails
from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Alert, Notification

ONCE_A_DAY = (Severity.MEDIUM.value, Severity.LOW.value)
LISTED = 50
"""So many alerts of each sort are listed in the letter; the others are counted."""


def digest_day(now: datetime, zone: ZoneInfo, hour: int) -> date | None:
    """Return the day whose digest is due at `now` (aware): today by the office's wall clock once it is `hour`:00."""
    local = now.astimezone(zone)
    return local.date() if local.time() >= time(hour) else None


def notify_digest(session: Session, emails: Sequence[str], day: date) -> int:
    """Write the digest of `day` to each address, unless that was done; return how many letters were written."""
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
                Alert.resolved_at.is_(None) & Alert.severity.in_(ONCE_A_DAY),
                Alert.resolved_at.is_not(None)
                & Alert.resolution_notified_at.is_(None)
                & sql.coalesce(Alert.notified_severity, Alert.severity).in_(ONCE_A_DAY),
            ),
        )
        .order_by(severity_rank(Alert.severity).desc(), Alert.id)
        .with_for_update()
    ).all()
    if not alerts:
        return 0
    sorts = {
        "opened": [one for one in alerts if one.resolved_at is None and one.notified_at is None],
        "still_open": [one for one in alerts if one.resolved_at is None and one.notified_at is not None],
        "resolved": [one for one in alerts if one.resolved_at is not None],
    }
    variables = {name: [in_a_letter(one) for one in some[:LISTED]] for name, some in sorts.items()} | {
        "as_of": day.isoformat(),
        "left_out": sum(max(0, len(some) - LISTED) for some in sorts.values()),
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
