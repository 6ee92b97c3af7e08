"""What `ops` keeps to tell people things: letters in the outbox, alerts, and balances below their minimum.

A row here is written in the transaction that causes it and delivered afterwards.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Identity, Index, text
from sqlalchemy import func as sql
from sqlalchemy.orm import Mapped, mapped_column

from seedtrust_ops.tables.base import INT, OpsTable


class Notification(OpsTable):
    """One letter to one person; `dedupe_key` keeps it from being written twice.

    While it is queued, `next_attempt_at` is when it may be tried; whoever tries it puts that ahead first, so that
    nobody else does, and `claim` is their token. `trouble` is why it was not sent yet, or never will be.
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
    """The file that goes with a letter; it is removed when the letter is sent."""

    __tablename__ = "notification_attachments"

    notification_id: Mapped[int] = mapped_column(
        ForeignKey(Notification.id, ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    filename: Mapped[str]
    media_type: Mapped[str]
    content: Mapped[bytes]
