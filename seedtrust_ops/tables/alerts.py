"""Alerts, and accounts below their minimum balance: at most one open row for each thing that is wrong."""

from datetime import datetime

from sqlalchemy import Identity, Index, text
from sqlalchemy import func as sql
from sqlalchemy.orm import Mapped, mapped_column

from seedtrust_ops.tables.base import OpsTable


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
