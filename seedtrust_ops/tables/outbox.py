"""The outbox: emails and events, written in the transaction that causes them and sent afterwards by `domain/outbox`."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Identity, Index, text
from sqlalchemy import func as sql
from sqlalchemy.orm import Mapped, mapped_column

from seedtrust_ops.tables.base import INT, OpsTable


class OutboxRow:
    """The columns that both tables have; `dedupe_key` prevents duplicates.

    While a row is queued, `next_attempt_at` is when it may be sent. A dispatcher that claims it moves that time
    forward, so that no other one sends it, and sets `claim_token`. `status` is queued, sent or failed. `last_error` is
    why the row was not sent yet, or why it failed.
    """

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    dedupe_key: Mapped[str] = mapped_column(unique=True)
    status: Mapped[str] = mapped_column(server_default="queued")
    attempts: Mapped[int] = mapped_column(INT, server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=sql.now())
    sent_at: Mapped[datetime | None]
    next_attempt_at: Mapped[datetime] = mapped_column(server_default=sql.now())
    attempted_at: Mapped[datetime | None]
    claim_token: Mapped[str | None]
    last_error: Mapped[str | None]


class Notification(OutboxRow, OpsTable):
    """One email to one person."""

    __tablename__ = "notifications"
    __table_args__ = (
        Index(
            "notifications_to_send", "kind", "next_attempt_at", "id", postgresql_where=text("status = 'queued'::text")
        ),
    )

    kind: Mapped[str]
    recipient_id: Mapped[int | None]
    recipient_email: Mapped[str]
    subject: Mapped[str]
    variables: Mapped[dict[str, Any]] = mapped_column(server_default="{}")


class NotificationAttachment(OpsTable):
    """The attachment of an email; it is deleted when the email is sent."""

    __tablename__ = "notification_attachments"

    notification_id: Mapped[int] = mapped_column(
        ForeignKey(Notification.id, ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    filename: Mapped[str]
    media_type: Mapped[str]
    content: Mapped[bytes]


class OutgoingEvent(OutboxRow, OpsTable):
    """One event for PostHog or the internal API; `body` is what the destination's client builds its request from."""

    __tablename__ = "outgoing_events"
    __table_args__ = (
        Index(
            "outgoing_events_to_send",
            "destination",
            "next_attempt_at",
            "id",
            postgresql_where=text("status = 'queued'::text"),
        ),
    )

    destination: Mapped[str]
    body: Mapped[dict[str, Any]]
