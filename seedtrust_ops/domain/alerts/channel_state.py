"""Which channel has notified people of which alert: rows of `ops.alert_notifications`, one per delivered notification.

A row is evidence of a delivery, so what has no row is still owed. What is owed is decided in
`domain/alert_notifications`, for the watchdog's own alerts in `watchdog`.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Alert, AlertNotification

IMMEDIATE_SEVERITIES = (Severity.CRITICAL.value, Severity.HIGH.value)
"""Alerts of these severities are notified at once, all others in a daily digest."""
DAEMON_SILENT = "daemon_silent"
TICKS_STOPPED = "ticks_stopped"
DATABASE_DOWN = "database_down"
WATCHDOG_RULES = (DAEMON_SILENT, TICKS_STOPPED, DATABASE_DOWN)
"""Rules whose alerts only the watchdog notifies people of, because the health sensor stops with Dagster."""
OPENED = "opened"
RESOLVED = "resolved"
SKIPPED = "skipped"
"""Not a delivery: the alert is about this channel, which therefore cannot carry it and does not owe it."""


class Channel(StrEnum):
    """A way to notify people."""

    EMAIL = "email"
    POSTHOG = "posthog"
    INTERNAL_API = "internal_api"
    ALERT_URLS = "alert_urls"
    DIGEST = "digest"


CHANNELS_TO_PEOPLE = (Channel.EMAIL, Channel.ALERT_URLS)
"""The channels that reach a person at once; PostHog and the internal API are read by those who look there."""


@dataclass(frozen=True)
class Delivery:
    """One delivered notification: which alert, by which channel, and what it said of it; `notified_at` is aware."""

    alert_id: int
    channel: Channel
    notification: str
    severity: str
    occurrences: int
    notified_at: datetime


def record_deliveries(session: Session, deliveries: Sequence[Delivery]) -> None:
    """Record what was delivered; what is recorded already stays as it is."""
    recorded = {
        (alert_id, row.channel, row.notification)
        for alert_id, rows in read_deliveries(session, {one.alert_id for one in deliveries}).items()
        for row in rows
    }
    new: dict[tuple[int, str, str], Delivery] = {}
    for one in deliveries:
        key = (one.alert_id, one.channel.value, one.notification)
        if key not in recorded:
            new.setdefault(key, one)
    if new:
        session.execute(insert(AlertNotification).on_conflict_do_nothing(), [asdict(one) for one in new.values()])


def read_deliveries(session: Session, alert_ids: Collection[int]) -> Mapping[int, Sequence[AlertNotification]]:
    """Return everything that was delivered about each alert, oldest first; no entry if nothing was."""
    if not alert_ids:
        return {}
    found: dict[int, list[AlertNotification]] = defaultdict(list)
    for row in session.scalars(
        select(AlertNotification)
        .where(in_array(AlertNotification.alert_id, alert_ids))
        .order_by(AlertNotification.notified_at, AlertNotification.id)
    ):
        found[row.alert_id].append(row)
    return found


def next_opening(alert_severity: str, delivered: Collection[AlertNotification]) -> str | None:
    """Return what one channel must say next of an alert with this severity: opened, risen, or nothing (None).

    `delivered` is what the channel has delivered about the alert.
    """
    if not delivered:
        return OPENED
    has_risen = _priority(alert_severity) > max(_priority(row.severity) for row in delivered)
    return f"rose-to-{alert_severity.lower()}" if has_risen else None


def is_acknowledged(alert: Alert, at: datetime) -> bool:
    """Return whether a person was working on the alert at `at` (aware), or when it was resolved.

    An acknowledgement is for the severity that the person saw.
    """
    return (
        alert.acknowledged_until is not None
        and alert.acknowledged_until > (alert.resolved_at or at)
        and alert.acknowledged_severity == alert.severity
    )


def owed_channels(
    alert: Alert, delivered: Collection[AlertNotification], configured: Collection[Channel], *, at: datetime
) -> list[Channel]:
    """Return the `configured` channels that still owe people an alert that is open and not acknowledged at `at`.

    `delivered` is what all channels have delivered about it.
    """
    if alert.resolved_at is not None or is_acknowledged(alert, at):
        return []
    is_immediate = alert.severity in IMMEDIATE_SEVERITIES
    return [
        channel
        for channel in Channel
        if channel in configured
        and (channel is not Channel.DIGEST) == is_immediate
        and _owes_opening(channel, alert.severity, [row for row in delivered if row.channel == channel])
    ]


def _owes_opening(channel: Channel, severity: str, delivered: Collection[AlertNotification]) -> bool:
    # The digest lists an open alert every day, with the severity of that day.
    return not delivered if channel is Channel.DIGEST else next_opening(severity, delivered) is not None


def _priority(severity: str) -> int:
    return Severity(severity).priority
