"""Alerts and balance alerts: at most one open row per problem."""

from datetime import datetime

from sqlalchemy import Identity, Index, text
from sqlalchemy import func as sql
from sqlalchemy.orm import Mapped, mapped_column

from seedtrust_ops.tables.base import OpsTable


class Alert(OpsTable):
    """A problem that people must know about; at most one unresolved row per rule and subject.

    `notified_at` and `resolution_notified_at` are when the notification was queued, at once or in a digest, and
    `notified_severity` is the severity it gave. `last_found_at` is when a health rule last found it; null if something
    else opened it, because rules resolve only what rules found.
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
        Index("alerts_to_notify", "opened_at", postgresql_where=text("notified_at IS NULL")),
        Index(
            "alerts_resolutions_to_notify",
            "resolved_at",
            postgresql_where=text("(resolved_at IS NOT NULL) AND (resolution_notified_at IS NULL)"),
        ),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    rule: Mapped[str]
    subject: Mapped[str]
    severity: Mapped[str]
    opened_at: Mapped[datetime] = mapped_column(server_default=sql.now())
    resolved_at: Mapped[datetime | None]
    detail: Mapped[str] = mapped_column(server_default="")
    notified_at: Mapped[datetime | None]
    resolution_notified_at: Mapped[datetime | None]
    notified_severity: Mapped[str | None]
    last_found_at: Mapped[datetime | None]
    acknowledged_at: Mapped[datetime | None]
    acknowledged_by: Mapped[str | None]


class BalanceAlert(OpsTable):
    """An account below its minimum balance; at most one unresolved row per account."""

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
