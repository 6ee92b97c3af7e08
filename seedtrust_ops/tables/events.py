"""Events for PostHog and the internal API, written in the transaction that causes them and delivered afterwards."""

from datetime import datetime
from typing import Any

from sqlalchemy import Identity, Index, text
from sqlalchemy import func as sql
from sqlalchemy.orm import Mapped, mapped_column

from seedtrust_ops.tables.base import INT, OpsTable


class OutgoingEvent(OpsTable):
    """One event for PostHog or the internal API; `dedupe_key` prevents duplicates.

    `body` is what the destination's client builds its request from. `last_error` is why it was not delivered yet, or
    why it was abandoned (`abandoned_at`).
    """

    __tablename__ = "outgoing_events"
    __table_args__ = (
        Index(
            "outgoing_events_to_send",
            "destination",
            "next_attempt_at",
            postgresql_where=text("(sent_at IS NULL) AND (abandoned_at IS NULL)"),
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
    abandoned_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
