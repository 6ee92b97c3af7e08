"""Health of the outbox: emails that stay queued, and events that PostHog or the internal API do not accept.

Emails that fail permanently have alerts of the same rule, opened in `domain/outbox/email_claims`.
"""

from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.notifications.kind_registry import KINDS
from seedtrust_ops.domain.outbox.email_claims import NOTIFICATIONS_FAILING
from seedtrust_ops.domain.outbox.event_store import Destination
from seedtrust_ops.formatting import format_duration, pluralize, single_line
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Notification, OutgoingEvent

_EVENTS = {
    Destination.POSTHOG: ("PostHog events", "POSTHOG_HOST, POSTHOG_API_KEY", "PostHog"),
    Destination.INTERNAL_API: ("internal API statuses", "INTERNAL_API_URL, INTERNAL_API_KEY", "the internal API"),
}


def notifications_failing(
    session: Session, *, max_wait_seconds: float, destinations: Collection[Destination]
) -> list[Finding]:
    """Find emails, and events for `destinations`, that have waited for more than `max_wait_seconds`."""
    found = _waiting_emails(session, max_wait_seconds)
    waiting = session.execute(
        select(OutgoingEvent.destination, func.count().label("number"))
        .where(
            OutgoingEvent.sent_at.is_(None),
            OutgoingEvent.abandoned_at.is_(None),
            OutgoingEvent.destination.in_([destination.value for destination in destinations]),
            OutgoingEvent.created_at < func.now() - timedelta(seconds=max_wait_seconds),
        )
        .group_by(OutgoingEvent.destination)
    )
    for row in waiting:
        subject, variables, service = _EVENTS[Destination(row.destination)]
        found.append(
            Finding(
                NOTIFICATIONS_FAILING,
                subject,
                Severity.HIGH,
                f"{row.number} {subject} queued for more than {format_duration(max_wait_seconds)}. Check "
                f"{variables} and the service. They are sent automatically once {service} accepts them.",
            )
        )
    return found


def _waiting_emails(session: Session, max_wait_seconds: float) -> list[Finding]:
    waiting = session.execute(
        select(Notification.kind, func.count().label("number"))
        .where(
            Notification.status == "queued",
            Notification.created_at < func.now() - timedelta(seconds=max_wait_seconds),
        )
        .group_by(Notification.kind)
    ).all()
    known = sum(row.number for row in waiting if row.kind in KINDS)
    unknown = {row.kind: row.number for row in waiting if row.kind not in KINDS}
    found = []
    if known:
        found.append(
            Finding(
                NOTIFICATIONS_FAILING,
                "outbox",
                Severity.HIGH,
                f"{pluralize(known, 'email has', 'emails have')} been queued for more than "
                f"{format_duration(max_wait_seconds)}. Check SMTP_HOST and the mail server. Queued emails are sent "
                "automatically once it accepts them.",
            )
        )
    if unknown:
        found.append(
            Finding(
                NOTIFICATIONS_FAILING,
                "unknown kinds of email",
                Severity.HIGH,
                f"{pluralize(sum(unknown.values()), 'email has', 'emails have')} been queued for more than "
                f"{format_duration(max_wait_seconds)}, of kinds that this release does not know: "
                f"{single_line(', '.join(sorted(unknown)), 200)}. They are sent automatically by a release that does; "
                "deploy it.",
            )
        )
    return found
