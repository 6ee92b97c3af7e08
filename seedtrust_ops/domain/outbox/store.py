"""Adds emails and events to the outbox in the transaction that causes them, and counts, requeues and purges its rows.

A `dedupe_key` identifies the topic and the recipient, so that nothing is queued twice. Sending is in `email_sink` and
`event_sink`. Code that queues thousands of emails at once may insert into `ops.notifications` directly: delivery needs
only dedupe_key, kind, recipient_id, recipient_email, variables and subject (empty: the kind's default).
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, Text, cast, delete, func, select, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Session

from seedtrust_ops.domain.notifications.kind_registry import KINDS
from seedtrust_ops.domain.outbox.queue import FAILED, QUEUED, is_due
from seedtrust_ops.domain.sql_arrays import array_table
from seedtrust_ops.tables import Notification, NotificationAttachment, OutgoingEvent

MAX_PURGED_ROWS = 5_000
"""A purge deletes at most this many rows per call."""


@dataclass(frozen=True)
class Attachment:
    """A file attached to one email; it is stored in the database until the email is sent."""

    filename: str
    media_type: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Email:
    """One email to one active user; `variables` are those that its kind lists.

    `recipient_id` is None if the recipient is not a user (an address in `ALERT_EMAILS`). An empty `subject` means
    the kind's default.
    """

    dedupe_key: str
    kind: str
    recipient_id: int | None
    recipient_email: str
    subject: str = ""
    variables: dict[str, Any] = field(default_factory=dict)
    attachment: Attachment | None = None


class Destination(StrEnum):
    """The service that an event is sent to."""

    POSTHOG = "posthog"
    INTERNAL_API = "internal_api"
    ALERT_URLS = "alert_urls"


@dataclass(frozen=True)
class Event:
    """One event; a `dedupe_key` is sent once. `body` contains no personal data."""

    destination: Destination
    dedupe_key: str
    body: dict[str, Any]


def enqueue_emails(session: Session, emails: Sequence[Email]) -> int:
    """Add `emails` to the outbox; return how many were new. One whose `dedupe_key` exists changes nothing."""
    if not emails:
        return 0
    new_rows = array_table(
        "emails",
        [
            ("dedupe_key", Text()),
            ("kind", Text()),
            ("recipient_id", BigInteger()),
            ("recipient_email", Text()),
            ("subject", Text()),
            ("variables", Text()),
        ],
        [
            (one.dedupe_key, one.kind, one.recipient_id, one.recipient_email, one.subject, json.dumps(one.variables))
            for one in emails
        ],
    )
    columns = new_rows.c
    inserted = session.execute(
        insert(Notification)
        .from_select(
            ["dedupe_key", "kind", "recipient_id", "recipient_email", "subject", "variables"],
            select(
                columns.dedupe_key,
                columns.kind,
                columns.recipient_id,
                columns.recipient_email,
                columns.subject,
                cast(columns.variables, JSONB),
            ),
        )
        .on_conflict_do_nothing(index_elements=["dedupe_key"])
        .returning(Notification.dedupe_key, Notification.id)
    ).all()
    ids = {row.dedupe_key: row.id for row in inserted}
    for email in emails:
        # If several share a key, the first was inserted.
        notification_id = ids.pop(email.dedupe_key, None)
        if notification_id is not None and email.attachment is not None:
            session.add(
                NotificationAttachment(
                    notification_id=notification_id,
                    filename=email.attachment.filename,
                    media_type=email.attachment.media_type,
                    content=email.attachment.content,
                )
            )
    session.flush()
    return len(inserted)


def enqueue_events(session: Session, events: Sequence[Event]) -> None:
    """Queue `events` in the caller's transaction; one whose `dedupe_key` exists changes nothing."""
    if not events:
        return
    new_rows = array_table(
        "events",
        [("destination", Text()), ("dedupe_key", Text()), ("body", JSONB())],
        [(event.destination.value, event.dedupe_key, event.body) for event in events],
    )
    session.execute(
        insert(OutgoingEvent)
        .from_select(["destination", "dedupe_key", "body"], select(*new_rows.c))
        .on_conflict_do_nothing(index_elements=[OutgoingEvent.dedupe_key])
    )


def count_due_emails(session: Session, kinds: Sequence[str] | None = None) -> int:
    """Return how many emails are due now: new ones, and those whose retry is due.

    Counted are emails of `kinds`, or of all kinds that this process knows: it can't send any other.
    """
    of_kinds = Notification.kind.in_(list(KINDS) if kinds is None else kinds)
    return session.scalar(select(func.count()).select_from(Notification).where(*is_due(Notification), of_kinds)) or 0


def count_queued_emails(
    session: Session, *, min_age: timedelta = timedelta(0), kinds: Collection[str] | None = None
) -> int:
    """Return how many emails of these kinds, or of all, are still in the queue and were written `min_age` ago."""
    is_meant = Notification.created_at <= func.now() - min_age
    if kinds is not None:
        is_meant &= Notification.kind.in_(kinds)
    return session.scalar(select(func.count(Notification.id)).where(Notification.status == QUEUED, is_meant)) or 0


def abandon_all(session: Session, destination: Destination, reason: str, key_prefix: str = "") -> int:
    """Abandon every event that waits for `destination`, or those whose key starts with `key_prefix`; return how many.

    It is for a destination that is not configured, and for events that a newer one supersedes.
    """
    abandoned = session.execute(
        update(OutgoingEvent)
        .where(
            OutgoingEvent.destination == destination.value,
            OutgoingEvent.dedupe_key.startswith(key_prefix, autoescape=True),
            OutgoingEvent.status == QUEUED,
        )
        .values(status=FAILED, claim_token=None, last_error=reason)
        .returning(OutgoingEvent.id)
    )
    return len(abandoned.all())


def purge_old_events(session: Session, before: datetime) -> int:
    """Delete up to MAX_PURGED_ROWS events created before `before` (aware) that are not queued; return the number.

    The newest event of each destination stays, because later events may be ordered after it.
    """
    newest = select(func.max(OutgoingEvent.id)).group_by(OutgoingEvent.destination)
    old = (
        select(OutgoingEvent.id)
        .where(OutgoingEvent.created_at < before, OutgoingEvent.status != QUEUED, OutgoingEvent.id.not_in(newest))
        .limit(MAX_PURGED_ROWS)
    )
    deleted = session.scalars(delete(OutgoingEvent).where(OutgoingEvent.id.in_(old)).returning(OutgoingEvent.id))
    return len(deleted.all())


def purge_old_attachments(session: Session, before: datetime) -> int:
    """Delete up to MAX_PURGED_ROWS attachments of failed emails created before `before` (aware); return the number.

    A report that old is no longer useful. If the email is sent again, it goes without the attachment.
    """
    old = (
        select(NotificationAttachment.notification_id)
        .join(Notification, Notification.id == NotificationAttachment.notification_id)
        .where(Notification.status == FAILED, Notification.created_at < before)
        .limit(MAX_PURGED_ROWS)
    )
    statement = delete(NotificationAttachment).where(NotificationAttachment.notification_id.in_(old))
    return len(session.scalars(statement.returning(NotificationAttachment.notification_id)).all())
