"""Tells at once of CRITICAL and HIGH alerts: opened, grown worse, over; by letter and to PostHog.

That an alert was told is noted in the transaction that queues the telling, so that no crash loses or repeats one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func as sql
from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import severity_rank
from seedtrust_ops.domain.notifications.notification_kinds import ALERT_KINDS, ALERT_OPENED, ALERT_RESOLVED
from seedtrust_ops.domain.outbox.email_claims import FAILING, alert_subject
from seedtrust_ops.domain.outbox.email_store import Email, enqueue_emails
from seedtrust_ops.domain.outbox.event_store import Destination, Event, queue_events
from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Alert

AT_ONCE = (Severity.CRITICAL.value, Severity.HIGH.value)
ALERTS_A_TIME = 50
_ABOUT_ALERT_LETTERS = {alert_subject(kind.name) for kind in ALERT_KINDS}


@dataclass(frozen=True)
class Channels:
    """By which ways people can be told at present: `emails` is empty and a flag False where one is not configured."""

    emails: tuple[str, ...]
    posthog: bool
    internal_api: bool


def notify_opened(session: Session, channels: Channels) -> int:
    """Tell of urgent alerts that nobody was told of, or that got worse since; return of how many.

    What a person has acknowledged is not told. At most ALERTS_A_TIME are, the worst first.
    """
    is_worse = severity_rank(Alert.severity) > severity_rank(sql.coalesce(Alert.notified_severity, Alert.severity))
    alerts = session.scalars(
        select(Alert)
        .where(
            Alert.severity.in_(AT_ONCE),
            Alert.acknowledged_at.is_(None),
            or_(Alert.notified_at.is_(None), Alert.resolved_at.is_(None) & is_worse),
        )
        .order_by(severity_rank(Alert.severity).desc(), Alert.id)
        .limit(ALERTS_A_TIME)
        .with_for_update(skip_locked=True)
    ).all()
    _tell(session, channels, [_opened(alert) for alert in alerts])
    session.execute(
        update(Alert)
        .where(in_array(Alert.id, [alert.id for alert in alerts]))
        .values(notified_at=sql.now(), notified_severity=Alert.severity)
    )
    return len(alerts)


def notify_resolved(session: Session, channels: Channels) -> int:
    """Tell that alerts which were told at once are over; return how many. Acknowledged ones are over in silence."""
    alerts = session.scalars(
        select(Alert)
        .where(
            Alert.resolved_at.is_not(None),
            Alert.notified_at.is_not(None),
            Alert.resolution_notified_at.is_(None),
            or_(Alert.notified_severity.in_(AT_ONCE), Alert.acknowledged_at.is_not(None)),
        )
        .order_by(Alert.id)
        .limit(ALERTS_A_TIME)
        .with_for_update(skip_locked=True)
    ).all()
    to_tell = [_resolved(alert) for alert in alerts if alert.acknowledged_at is None]
    _tell(session, channels, to_tell)
    session.execute(
        update(Alert).where(in_array(Alert.id, [alert.id for alert in alerts])).values(resolution_notified_at=sql.now())
    )
    return len(to_tell)


def in_a_letter(alert: Alert) -> dict[str, Any]:
    """Return the alert as the templates of letters know it; `resolved_at` only where it is over."""
    told = {
        "rule": alert.rule,
        "subject": alert.subject,
        "severity": alert.severity,
        "opened_at": alert.opened_at.isoformat(),
        "detail": alert.detail,
    }
    return told if alert.resolved_at is None else told | {"resolved_at": alert.resolved_at.isoformat()}


@dataclass(frozen=True)
class _Telling:
    """One alert and what is said of it."""

    alert: Alert
    key: str
    letter_kind: str
    event_name: str
    variables: dict[str, Any]


def _opened(alert: Alert) -> _Telling:
    has_risen = alert.notified_at is not None
    what = f"rose-to-{alert.severity.lower()}" if has_risen else "opened"
    # One that is over by now is told as both, one after the other.
    variables = {name: value for name, value in in_a_letter(alert).items() if name != "resolved_at"}
    return _Telling(
        alert, f"alert:{alert.id}:{what}", ALERT_OPENED.name, "alert_opened", variables | {"has_risen": has_risen}
    )


def _resolved(alert: Alert) -> _Telling:
    return _Telling(alert, f"alert:{alert.id}:resolved", ALERT_RESOLVED.name, "alert_resolved", in_a_letter(alert))


def _tell(session: Session, channels: Channels, tellings: Sequence[_Telling]) -> None:
    enqueue_emails(
        session,
        [
            Email(f"{one.key}:{address}", one.letter_kind, None, address, variables=one.variables)
            for one in tellings
            if not _is_about_alert_letters(one.alert)
            for address in channels.emails
        ],
    )
    if channels.posthog:
        queue_events(
            session,
            [
                Event(Destination.POSTHOG, one.key, {"event": one.event_name, "properties": _properties(one)})
                for one in tellings
            ],
        )


def _properties(one: _Telling) -> dict[str, Any]:
    """Return what PostHog is told: not the detail, in which a server or a person may have named somebody."""
    return {"alert_id": one.alert.id} | {name: value for name, value in one.variables.items() if name != "detail"}


def _is_about_alert_letters(alert: Alert) -> bool:
    """Return whether a letter would tell that letters like itself can't be sent: that would cause the next."""
    return alert.rule == FAILING and alert.subject in _ABOUT_ALERT_LETTERS
