"""Alerts, which channel has notified people of them, and balance alerts: at most one open row per problem."""

from datetime import datetime

from sqlalchemy import ForeignKey, Identity, Index, text
from sqlalchemy import func as sql
from sqlalchemy.orm import Mapped, mapped_column

from seedtrust_ops.tables.base import INT, OpsTable


class Alert(OpsTable):
    """A problem that people must know about; at most one unresolved row per rule and subject.

    `detail` is what was reported last. `occurrences` counts how often something new was reported while it is open.
    `last_found_at` is when a health rule last found it; null if something else opened it, because rules resolve only
    what rules found.
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
        Index("alerts_resolved", "resolved_at", postgresql_where=text("resolved_at IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    rule: Mapped[str]
    subject: Mapped[str]
    severity: Mapped[str]
    opened_at: Mapped[datetime] = mapped_column(server_default=sql.now())
    resolved_at: Mapped[datetime | None]
    detail: Mapped[str] = mapped_column(server_default="")
    last_found_at: Mapped[datetime | None]
    acknowledged_at: Mapped[datetime | None]
    acknowledged_by: Mapped[str | None]
    occurrences: Mapped[int] = mapped_column(INT, server_default="1")


class AlertNotification(OpsTable):
    """Evidence that one channel delivered one notification about one alert; the table is append-only, by a trigger.

    What has no row was not delivered. `notification` says which one it was (`opened`, `resolved` and so on),
    `severity` and `occurrences` what it said of the alert.
    """

    __tablename__ = "alert_notifications"
    __table_args__ = (Index("alert_notifications_once", "alert_id", "channel", "notification", unique=True),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    alert_id: Mapped[int] = mapped_column(ForeignKey(Alert.id))
    channel: Mapped[str]
    notification: Mapped[str]
    severity: Mapped[str]
    occurrences: Mapped[int] = mapped_column(INT, server_default="1")
    notified_at: Mapped[datetime] = mapped_column(server_default=sql.now())


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
