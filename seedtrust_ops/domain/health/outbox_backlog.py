"""Health of telling people: letters that leave nobody's hands, and events that PostHog or the internal API don't take.

Single letters that fail for good have alerts of the same rule already, opened by `domain/notifications/claims`.
"""

from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.health.rule import in_time
from seedtrust_ops.domain.outbox.email_claims import FAILING
from seedtrust_ops.domain.outbox.event_store import Destination
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Notification, OutgoingEvent

_EVENTS = {
    Destination.POSTHOG: ("PostHog events", "POSTHOG_HOST, POSTHOG_API_KEY"),
    Destination.INTERNAL_API: ("internal API statuses", "INTERNAL_API_URL, INTERNAL_API_KEY"),
}


def notifications_failing(session: Session, *, longest_seconds: float, told: Collection[Destination]) -> list[Finding]:
    """Find letters, and events for the destinations `told`, that have waited for more than `longest_seconds`."""
    found = []
    number = session.execute(
        select(func.count()).where(
            Notification.status == "queued",
            Notification.created_at < func.now() - timedelta(seconds=longest_seconds),
        )
    ).scalar_one()
    if number:
        found.append(
            Finding(
                FAILING,
                "outbox",
                Severity.HIGH,
                f"{number} letter{' has' if number == 1 else 's have'} waited for over {in_time(longest_seconds)} "
                "to be sent. See SMTP_HOST and the mail server; they are sent by themselves once it takes them.",
            )
        )
    waiting = session.execute(
        select(OutgoingEvent.destination, func.count().label("number"))
        .where(
            OutgoingEvent.sent_at.is_(None),
            OutgoingEvent.abandoned_at.is_(None),
            OutgoingEvent.destination.in_([one.value for one in told]),
            OutgoingEvent.created_at < func.now() - timedelta(seconds=longest_seconds),
        )
        .group_by(OutgoingEvent.destination)
    )
    for row in waiting:
        subject, variables = _EVENTS[Destination(row.destination)]
        found.append(
            Finding(
                FAILING,
                subject,
                Severity.HIGH,
                f"{row.number} {subject} have waited for over {in_time(longest_seconds)} to be delivered. See "
                f"{variables} and that server; they are delivered by themselves once it takes them.",
            )
        )
    return found
