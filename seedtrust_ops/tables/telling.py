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
    claim: Mapped[str | None]
    trouble: Mapped[str | None]


class NotificationAttachment(OpsTable):
    """The file that goes with a letter; it is removed when the letter is sent."""

    __tablename__ = "notification_attachments"

    notification_id: Mapped[int] = mapped_column(
        ForeignKey(Notification.id, ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    filename: Mapped[str]
    media_type: Mapped[str]
    content: Mapped[bytes]


class Alert(OpsTable):
    """Trouble that somebody must know of; at most one unresolved a rule and subject.

    `told_at` and `resolution_told_at` are when its telling was queued, at once or in a digest, and `told_severity`
    is as what; whoever acknowledged it need not be told of it again. `last_found_at` is when a health rule found it
    last, null where something else opened it: only what rules found do rules resolve.
    """

    __tablename__ = "alerts"
    __table_args__ = (
        Index(
            "alerts_one_unresolved",
            "rule",
            "subject",
            unique=True,
            postgresql_where=text("resolved_at IS NULL"),
        ),
        Index("alerts_to_tell", "opened_at", postgresql_where=text("told_at IS NULL")),
        Index(
            "alerts_resolutions_to_tell",
            "resolved_at",
            postgresql_where=text("(resolved_at IS NOT NULL) AND (resolution_told_at IS NULL)"),
        ),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    rule: Mapped[str]
    subject: Mapped[str]
    severity: Mapped[str]
    opened_at: Mapped[datetime] = mapped_column(server_default=sql.now())
    resolved_at: Mapped[datetime | None]
    detail: Mapped[str] = mapped_column(server_default="")
    told_at: Mapped[datetime | None]
    resolution_told_at: Mapped[datetime | None]
    told_severity: Mapped[str | None]
    last_found_at: Mapped[datetime | None]
    acknowledged_at: Mapped[datetime | None]
    acknowledged_by: Mapped[str | None]


class OutgoingEvent(OpsTable):
    """Something to be told to PostHog or the internal API; `dedupe_key` keeps it from being written twice.

    `body` is what the destination's own module makes a request of. `trouble` is why it was not taken yet, or
    never will be (`given_up_at`).
    """

    __tablename__ = "outgoing_events"
    __table_args__ = (
        Index(
            "outgoing_events_to_send",
            "destination",
            "next_attempt_at",
            postgresql_where=text("(sent_at IS NULL) AND (given_up_at IS NULL)"),
        ),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    destination: Mapped[str]
    dedupe_key: Mapped[str] = mapped_column(unique=True)
    body: Mapped[dict[str, Any]]
    attempts: Mapped[int] = mapped_column(INT, server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=sql.now())
    next_attempt_at: Mapped[datetime] = mapped_column(server_default=sql.now())
    sent_at: Mapped[datetime | None]
    given_up_at: Mapped[datetime | None]
    trouble: Mapped[str | None]


class BalanceAlert(OpsTable):
    """An account found below its minimum; at most one unresolved an account."""

    __tablename__ = "balance_alerts"
    __table_args__ = (
        Index(
            "balance_alerts_one_unresolved",
            "account_id",
            unique=True,
            postgresql_where=text("resolved_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    account_id: Mapped[int]
    balance_cents: Mapped[int]
    minimum_balance_cents: Mapped[int]
    shortfall_cents: Mapped[int]
    opened_at: Mapped[datetime] = mapped_column(server_default=sql.now())
    resolved_at: Mapped[datetime | None]
