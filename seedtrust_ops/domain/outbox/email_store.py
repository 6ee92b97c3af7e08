"""The email outbox: emails are rows of `ops.notifications`, written in the transaction that causes them.

An email's `dedupe_key` identifies its topic and recipient, so that no email is queued twice. Code that queues
thousands at once may insert into `ops.notifications` directly: delivery needs only dedupe_key, kind, recipient_id,
recipient_email, variables and subject (empty: the kind's default).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import BigInteger, Text, cast, func, select, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Session

from seedtrust_ops.domain.notifications.kind_registry import KINDS
from seedtrust_ops.domain.sql_arrays import array_table, in_array
from seedtrust_ops.tables import Notification, NotificationAttachment


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


def requeue_emails(session: Session, ids: Sequence[int]) -> None:
    """Queue these emails again, with all their attempts, if they have failed."""
    session.execute(
        update(Notification)
        .where(in_array(Notification.id, ids), Notification.status == "failed")
        .values(status="queued", attempts=0, next_attempt_at=func.now(), claim_token=None)
    )


def count_due_emails(session: Session, kinds: Sequence[str] | None = None) -> int:
    """Return how many emails are due now: new ones, and those whose retry is due.

    Counted are emails of `kinds`, or of all kinds that this process knows: it can't send any other.
    """
    of_kinds = Notification.kind.in_(list(KINDS) if kinds is None else kinds)
    return session.scalar(select(func.count()).select_from(Notification).where(*is_due(), of_kinds)) or 0


def is_due() -> tuple[Any, ...]:
    """Return the conditions for an email that may be sent now."""
    return Notification.status == "queued", Notification.next_attempt_at <= func.now()


def count_queued_emails(session: Session, min_age: timedelta) -> int:
    """Return how many emails that are still in the queue were written at least `min_age` ago."""
    is_old = Notification.created_at <= func.now() - min_age
    return session.scalar(select(func.count(Notification.id)).where(Notification.status == "queued", is_old)) or 0
