"""Notifies people at once of CRITICAL and HIGH alerts: opened, risen, occurred again, resolved; by email and PostHog.

The status of component `jobs` is in `jobs_status`, MEDIUM and LOW alerts are in `digest`.
See docs/decisions/alerts.md.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Text, or_, select
from sqlalchemy.orm import Session, aliased

from seedtrust_ops.domain.alerts.channel_state import (
    IMMEDIATE_SEVERITIES,
    OPENED,
    RESOLVED,
    SKIPPED,
    WATCHDOG_RULES,
    Channel,
    Delivery,
    is_acknowledged,
    next_opening,
    read_deliveries,
    record_deliveries,
)
from seedtrust_ops.domain.alerts.store import resolve_alert, severity_rank
from seedtrust_ops.domain.notifications.notification_kinds import ALERT_KINDS, ALERT_OPENED, ALERT_RESOLVED
from seedtrust_ops.domain.outbox.email_sink import NOTIFICATIONS_FAILING, alert_subject
from seedtrust_ops.domain.outbox.queue import FAILED, QUEUED, requeue
from seedtrust_ops.domain.outbox.store import Destination, Email, Event, enqueue_emails, enqueue_events
from seedtrust_ops.domain.sql_arrays import array_table, in_array
from seedtrust_ops.formatting import strip_control_chars
from seedtrust_ops.tables import Alert, AlertNotification, Notification, OutboxRow, OutgoingEvent

OWED_AFTER_RESOLUTION = timedelta(days=3)
"""A channel that was not reached or not configured owes nothing about an alert that was resolved before this time."""
REPEAT_AFTER = timedelta(hours=1)
"""An alert that occurs again is notified again after this time, and a notification that failed for good is retried."""
MAX_ALERTS_PER_TICK = 50
_KIND_BY_SUBJECT = {alert_subject(kind.name): kind.name for kind in ALERT_KINDS}


@dataclass(frozen=True)
class _Owed:
    """One notification that a channel has not delivered yet.

    `name` identifies it among those of its alert. `address` is whom an email goes to, `service` the id of a chat or
    paging service; PostHog has neither.
    """

    alert: Alert
    name: str
    address: str = ""
    service: str = ""

    @property
    def key(self) -> str:
        """The key in the outbox."""
        return _outbox_key(self.alert.id, self.name, self.address or self.service)

    @property
    def variables(self) -> dict[str, Any]:
        """The variables of the email and of the PostHog event."""
        variables = alert_variables(self.alert)
        if self.name == RESOLVED:
            return variables
        # An alert that is already resolved gets both notifications, one after the other.
        variables.pop("resolved_at", None)
        return variables | {"has_risen": self.name.startswith("rose-to-"), "has_recurred": _is_repetition(self.name)}

    @property
    def email(self) -> Email:
        """The email for the outbox."""
        kind = ALERT_RESOLVED if self.name == RESOLVED else ALERT_OPENED
        return Email(self.key, kind.name, None, self.address, variables=self.variables)

    @property
    def event(self) -> Event:
        """The event for the outbox: a message for a service, or PostHog's, which leaves out the detail."""
        if self.service:
            return Event(Destination.ALERT_URLS, self.key, {"service": self.service, **_message(self)})
        change = {RESOLVED: "alert_resolved"}.get(
            self.name, "alert_recurred" if _is_repetition(self.name) else "alert_opened"
        )
        properties = {name: value for name, value in self.variables.items() if name != "detail"}
        return Event(Destination.POSTHOG, self.key, {"event": change, "properties": properties})


def enqueue_owed(
    session: Session, *, emails: Sequence[str], posthog: bool, services: Collection[str] = (), now: datetime
) -> set[int]:
    """Queue everything that the channels owe people and that is not queued yet, for the worst alerts first.

    A notification that failed for good is queued again after an hour. At most MAX_ALERTS_PER_TICK alerts are queued per
    call. The email that an alert is resolved waits for the earlier ones, which it must not overtake after an outage.

    Args:
        session: on the application's database.
        emails: the addresses of ALERT_EMAILS; email is not configured if there are none.
        posthog: whether PostHog is configured.
        services: the ids of the chat and paging services of ALERT_URLS.
        now: aware.

    Returns:
        The alerts that people should be notified of, and that no channel has notified anybody of so far.
    """
    alerts = _current_alerts(session, now)
    _skip_alerts_about_alert_emails(session, alerts, now)
    delivered = read_deliveries(session, [alert.id for alert in alerts])
    owed = [
        one for alert in alerts for one in _owed(alert, delivered.get(alert.id, ()), emails, posthog, services, now)
    ]
    emails_owed = {one.key: one for one in owed if one.address}
    events_owed = {one.key: one for one in owed if not one.address}
    queued_emails = _find_emails(session, emails_owed)
    queued_events = _find_events(session, events_owed)
    new = [one for one in owed if one.key not in queued_emails and one.key not in queued_events]
    waiting = _alerts_with_waiting_emails(session, new, delivered)
    new = [one for one in new if not (one.name == RESOLVED and one.address and one.alert.id in waiting)]
    chosen = list(dict.fromkeys(one.alert.id for one in new))[:MAX_ALERTS_PER_TICK]
    enqueue_emails(session, [one.email for one in new if one.address and one.alert.id in chosen])
    enqueue_events(session, [one.event for one in new if not one.address and one.alert.id in chosen])

    requeue(session, Notification, in_array(Notification.id, _retriable_ids(queued_emails.values(), now)))
    requeue(session, OutgoingEvent, in_array(OutgoingEvent.id, _retriable_ids(queued_events.values(), now)))
    return {
        alert.id
        for alert in alerts
        if not is_acknowledged(alert, now) and _is_unnotified(alert, delivered.get(alert.id, ()))
    }


def record_delivered(session: Session, *, emails: Sequence[str], services: Collection[str] = (), now: datetime) -> None:
    """Record the emails and events about current alerts that the outbox has delivered.

    Email has notified people of an alert once one of the addresses in `emails` was sent it, and so have the `services`.
    """
    alerts = _current_alerts(session, now)
    delivered = read_deliveries(session, [alert.id for alert in alerts])
    by_email: dict[str, tuple[int, str]] = {}
    by_event: dict[str, tuple[int, str]] = {}
    by_message: dict[str, tuple[int, str]] = {}
    for alert in alerts:
        rows = delivered.get(alert.id, ())
        for name in _possible_names(_of_channel(rows, Channel.EMAIL)):
            by_email |= {_outbox_key(alert.id, name, address): (alert.id, name) for address in emails}
        for name in _possible_names(_of_channel(rows, Channel.POSTHOG)):
            by_event[_outbox_key(alert.id, name)] = alert.id, name
        for name in _possible_names(_of_channel(rows, Channel.ALERT_URLS)):
            by_message |= {_outbox_key(alert.id, name, service): (alert.id, name) for service in services}
    sent_emails = _find_emails(session, by_email, Notification.sent_at.is_not(None))
    sent_events = _find_events(session, by_event, OutgoingEvent.sent_at.is_not(None))
    sent_messages = _find_events(session, by_message, OutgoingEvent.sent_at.is_not(None))
    record_deliveries(
        session,
        [
            *(_delivery(Channel.EMAIL, *by_email[key], row.variables, row.sent_at) for key, row in sent_emails.items()),
            *(
                _delivery(Channel.POSTHOG, *by_event[key], row.body["properties"], row.sent_at)
                for key, row in sent_events.items()
            ),
            *(
                _delivery(Channel.ALERT_URLS, *by_message[key], row.body, row.sent_at)
                for key, row in sent_messages.items()
            ),
        ],
    )
    _resolve_alerts_about_alert_emails(session, alerts, emails)


def find_unnotified(session: Session, alert_ids: Collection[int]) -> set[int]:
    """Return those of the alerts that no channel has notified anybody of, at their present severity."""
    delivered = read_deliveries(session, alert_ids)
    alerts = session.scalars(select(Alert).where(in_array(Alert.id, alert_ids)))
    return {alert.id for alert in alerts if _is_unnotified(alert, delivered.get(alert.id, ()))}


def alert_variables(alert: Alert) -> dict[str, Any]:
    """Return what notifications say of the alert; `resolved_at` only if it is resolved."""
    variables = {
        "alert_id": alert.id,
        "rule": alert.rule,
        "subject": alert.subject,
        "severity": alert.severity,
        "opened_at": alert.opened_at.isoformat(),
        "detail": alert.detail,
        "occurrences": alert.occurrences,
    }
    return variables if alert.resolved_at is None else variables | {"resolved_at": alert.resolved_at.isoformat()}


def _current_alerts(session: Session, now: datetime) -> Sequence[Alert]:
    """Return the urgent alerts that may owe something, worst first; the watchdog notifies people of its own."""
    return session.scalars(
        select(Alert)
        .where(
            Alert.severity.in_(IMMEDIATE_SEVERITIES),
            Alert.rule.not_in(WATCHDOG_RULES),
            or_(Alert.resolved_at.is_(None), Alert.resolved_at > now - OWED_AFTER_RESOLUTION),
        )
        .order_by(severity_rank(Alert.severity).desc(), Alert.id)
    ).all()


def _owed(
    alert: Alert,
    delivered: Collection[AlertNotification],
    emails: Sequence[str],
    posthog: bool,
    services: Collection[str],
    now: datetime,
) -> Iterator[_Owed]:
    if not _is_about_alert_emails(alert):
        for name in _owed_names(alert, _of_channel(delivered, Channel.EMAIL), now):
            yield from (_Owed(alert, name, address) for address in emails)
    if posthog:
        for name in _owed_names(alert, _of_channel(delivered, Channel.POSTHOG), now):
            yield _Owed(alert, name)
    for name in _owed_names(alert, _of_channel(delivered, Channel.ALERT_URLS), now) if services else ():
        yield from (_Owed(alert, name, service=service) for service in services)


def _message(owed: _Owed) -> dict[str, Any]:
    """Return what a chat or paging service shows of the alert, and what the delivery is evidence of."""
    alert = owed.alert
    what = f"{alert.rule.replace('_', ' ')}, {alert.subject}"
    if owed.name == RESOLVED:
        title = f"Resolved: {what}"
    else:
        title = f"{alert.severity}: {what}{', again' if _is_repetition(owed.name) else ''}"
    return {
        "title": strip_control_chars(title),
        "text": strip_control_chars(f"{alert.detail} (alert {alert.id}; see docs/runbook.md)"),
        "severity": alert.severity,
        "occurrences": alert.occurrences,
        "is_resolved": owed.name == RESOLVED,
    }


def _owed_names(alert: Alert, delivered: Sequence[AlertNotification], now: datetime) -> Iterator[str]:
    """Yield what one channel must still say of the alert; `delivered` is what it has said, oldest first."""
    opening = next_opening(alert.severity, delivered)
    acknowledged = is_acknowledged(alert, now)
    if alert.resolved_at is not None:
        if opening == OPENED and not acknowledged:
            yield OPENED
        if not acknowledged and all(row.notification != RESOLVED for row in delivered):
            yield RESOLVED
    elif opening is not None:
        if not acknowledged:
            yield opening
    elif _has_occurred_again(alert, delivered, now) or _has_outlasted_acknowledgement(alert, delivered, now):
        yield _next_repetition(delivered)


def _has_occurred_again(alert: Alert, delivered: Sequence[AlertNotification], now: datetime) -> bool:
    """Return whether there is something new to say, and the last notification is long enough ago."""
    return (
        alert.occurrences > max(row.occurrences for row in delivered)
        and delivered[-1].notified_at <= now - REPEAT_AFTER
    )


def _has_outlasted_acknowledgement(alert: Alert, delivered: Sequence[AlertNotification], now: datetime) -> bool:
    """Return whether the person who was working on it has run out of time, and nobody was notified since."""
    until = alert.acknowledged_until
    return until is not None and delivered[-1].notified_at < until <= now


def _next_repetition(delivered: Collection[AlertNotification]) -> str:
    # The number stays the same until this repetition is delivered, so that it is queued once.
    return f"again-{1 + sum(_is_repetition(row.notification) for row in delivered)}"


def _is_repetition(name: str) -> bool:
    return name.startswith("again-")


def _possible_names(delivered: Collection[AlertNotification]) -> list[str]:
    """Return every notification of an alert that one channel may have queued and that is not recorded yet."""
    risen = [f"rose-to-{severity.lower()}" for severity in IMMEDIATE_SEVERITIES]
    recorded = {row.notification for row in delivered}
    return [name for name in (OPENED, *risen, _next_repetition(delivered), RESOLVED) if name not in recorded]


def _of_channel(rows: Collection[AlertNotification], channel: Channel) -> list[AlertNotification]:
    return [row for row in rows if row.channel == channel]


def _is_unnotified(alert: Alert, delivered: Collection[AlertNotification]) -> bool:
    return next_opening(alert.severity, [row for row in delivered if row.notification != SKIPPED]) is not None


def _outbox_key(alert_id: int, name: str, address: str = "") -> str:
    return f"alert:{alert_id}:{name}:{address}" if address else f"alert:{alert_id}:{name}"


def _delivery(
    channel: Channel, alert_id: int, name: str, said: Mapping[str, Any], notified_at: datetime | None
) -> Delivery:
    assert notified_at is not None, "only sent emails and events are deliveries"
    # What an older release has queued does not say how often the alert has occurred.
    return Delivery(alert_id, channel, name, said["severity"], said.get("occurrences", 1), notified_at)


def _retriable_ids(rows: Iterable[OutboxRow], now: datetime) -> list[int]:
    return [
        row.id for row in rows if row.status == FAILED and (row.attempted_at or row.created_at) <= now - REPEAT_AFTER
    ]


def _alerts_with_waiting_emails(
    session: Session, new: Collection[_Owed], delivered: Mapping[int, Sequence[AlertNotification]]
) -> set[int]:
    """Return the alerts of which every address has yet to be sent an earlier email than that they are resolved."""
    addresses: dict[int, set[str]] = defaultdict(set)
    waiting: dict[int, set[str]] = defaultdict(set)
    earlier: dict[str, _Owed] = {}
    for one in new:
        if one.name == RESOLVED and one.address:
            addresses[one.alert.id].add(one.address)
            for name in _possible_names(_of_channel(delivered.get(one.alert.id, ()), Channel.EMAIL)):
                if name != RESOLVED:
                    earlier[_outbox_key(one.alert.id, name, one.address)] = one
        elif one.address:
            waiting[one.alert.id].add(one.address)
    for key in _find_emails(session, earlier, Notification.status == QUEUED):
        waiting[earlier[key].alert.id].add(earlier[key].address)
    return {alert_id for alert_id, those in addresses.items() if those <= waiting[alert_id]}


def _find_emails(session: Session, keys: Collection[str], *conditions: ColumnElement[bool]) -> dict[str, Notification]:
    wanted = array_table("wanted", [("key", Text())], [(key,) for key in keys])
    query = select(Notification).join(wanted, wanted.c.key == Notification.dedupe_key).where(*conditions)
    return {row.dedupe_key: row for row in session.scalars(query)}


def _find_events(session: Session, keys: Collection[str], *conditions: ColumnElement[bool]) -> dict[str, OutgoingEvent]:
    wanted = array_table("wanted", [("key", Text())], [(key,) for key in keys])
    query = select(OutgoingEvent).join(wanted, wanted.c.key == OutgoingEvent.dedupe_key).where(*conditions)
    return {row.dedupe_key: row for row in session.scalars(query)}


def _is_about_alert_emails(alert: Alert) -> bool:
    """Return whether the alert says that alert emails fail: an email about it would fail and cause the next alert."""
    return alert.rule == NOTIFICATIONS_FAILING and alert.subject in _KIND_BY_SUBJECT


def _skip_alerts_about_alert_emails(session: Session, alerts: Sequence[Alert], now: datetime) -> None:
    """Record that email skips these alerts, so that nobody waits for an email about them."""
    record_deliveries(
        session,
        [
            Delivery(alert.id, Channel.EMAIL, SKIPPED, alert.severity, alert.occurrences, now)
            for alert in alerts
            if _is_about_alert_emails(alert)
        ],
    )


def _resolve_alerts_about_alert_emails(session: Session, alerts: Sequence[Alert], emails: Sequence[str]) -> None:
    """Resolve the alert that emails of a kind fail if each address in `emails` has been sent an alert email since.

    Those that failed need not be sent any more: what they were about is in the later ones, or queued again. What failed
    for an address that is no longer in ALERT_EMAILS is dealt with.
    """
    later = aliased(Notification)
    is_sent_since = select(later.id).where(
        later.kind.in_([kind.name for kind in ALERT_KINDS]),
        later.recipient_email == Notification.recipient_email,
        later.sent_at > Notification.attempted_at,
    )
    for alert in alerts:
        if alert.resolved_at is None and _is_about_alert_emails(alert):
            failed = select(Notification.id).where(
                Notification.kind == _KIND_BY_SUBJECT[alert.subject],
                Notification.status == FAILED,
                Notification.recipient_email.in_(emails),
                ~is_sent_since.exists(),
            )
            if not session.scalar(select(failed.exists())):
                resolve_alert(session, alert.rule, alert.subject)
