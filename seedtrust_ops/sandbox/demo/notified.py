"""Reads who was notified of what during the demo: alerts by the channels that delivered them, emails by recipient."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import distinct, func, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.channel_state import SKIPPED, Channel
from seedtrust_ops.domain.alerts.store import severity_rank
from seedtrust_ops.formatting import pluralize
from seedtrust_ops.sandbox.demo.environment import ON_CALL
from seedtrust_ops.tables import Alert, AlertNotification, Notification, User

CHANNELS = {
    Channel.EMAIL.value: f"email to {ON_CALL}",
    Channel.POSTHOG.value: "PostHog",
    Channel.INTERNAL_API.value: "internal API",
    Channel.DIGEST.value: "daily digest",
}
TRANSFER_EMAILS = "transfer-%"
"""The kinds of emails about payments that failed, were rejected or came back."""


@dataclass(frozen=True)
class Notified:
    """One kind of incident, how often it happened, and who was notified of it."""

    incident: str
    severity: str
    times: int
    who: Sequence[str]


def read_notified(session: Session) -> list[Notified]:
    """Return the incidents with an alert, worst first, and then the emails about single payments."""
    channels = defaultdict(list)
    for rule, channel in session.execute(
        select(Alert.rule, AlertNotification.channel)
        .join(AlertNotification, AlertNotification.alert_id == Alert.id)
        .where(AlertNotification.notification != SKIPPED)
        .distinct()
        .order_by(Alert.rule, AlertNotification.channel)
    ).tuples():
        channels[rule].append(CHANNELS.get(channel, channel))
    alerts = session.execute(
        select(Alert.rule, Alert.severity, func.count())
        .group_by(Alert.rule, Alert.severity)
        .order_by(severity_rank(Alert.severity).desc(), Alert.rule)
    ).tuples()
    emails = session.execute(
        select(Notification.kind, User.role, func.count(), func.count(distinct(Notification.recipient_email)))
        .outerjoin(User, User.id == Notification.recipient_id)
        .where(Notification.kind.like(TRANSFER_EMAILS), Notification.status == "sent")
        .group_by(Notification.kind, User.role)
        .order_by(Notification.kind, User.role)
    ).tuples()
    return [Notified(rule, severity, times, channels[rule]) for rule, severity, times in alerts] + [
        Notified(
            kind.replace("-", " "), "", times, [f"email to {pluralize(people, (role or 'on-call').replace('_', ' '))}"]
        )
        for kind, role, times, people in emails
    ]
