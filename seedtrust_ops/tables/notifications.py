"""The outbox of email: rows are written in the transaction that causes them and sent afterwards."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Identity, Index, text
from sqlalchemy import func as sql
from sqlalchemy.orm import Mapped, mapped_column

from seedtrust_ops.tables.base import INT, OpsTable


class Notification(OpsTable):
    """One email to one person; `dedupe_key` prevents duplicates.

    While it is queued, `next_attempt_at` is when it may be sent. A worker that claims it moves that time forward, so
    that no other worker sends it, and sets `claim_token`. `last_error` is why it was not sent yet, or why it failed.
    """

    __tablename__ = "notifications"
    __table_args__ = (
        Index(
            "notifications_to_send", "kind", "next_attempt_at", "id", postgresql_where=text("status = 'queued'::text")
        ),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    dedupe_key: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    recipient_id: Mapped[int | None]
    recipient_email: Mapped[str]
    subject: Mapped[str]
    variables: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    status: Mapped[str] = mapped_column(server_default="queued")
    attempts: Mapped[int] = mapped_column(INT, server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=sql.now())
    sent_at: Mapped[datetime | None]
    next_attempt_at: Mapped[datetime] = mapped_column(server_default=sql.now())
    attempted_at: Mapped[datetime | None]
    claim_token: Mapped[str | None]
    last_error: Mapped[str | None]


class NotificationAttachment(OpsTable):
    """The attachment of an email; it is deleted when the email is sent."""

    __tablename__ = "notification_attachments"

    notification_id: Mapped[int] = mapped_column(
        ForeignKey(Notification.id, ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    filename: Mapped[str]
    media_type: Mapped[str]
    content: Mapped[bytes]
