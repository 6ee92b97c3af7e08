"""Decisions of jobs in shadow mode: `domain/shadow_mode/` writes them, `seedtrust-ops shadow compare` reads them."""

from datetime import datetime
from typing import Any

from sqlalchemy import Identity, Index, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from seedtrust_ops.tables.base import INT, OpsTable


class ShadowDecision(OpsTable):
    """One decision of a job about a subject, such as to approve request 12.

    A repeated decision stays one row: `times` counts it, and `last_seen_at` and `detail` are those of the newest.
    `detail` contains no personal data and no account number.
    """

    __tablename__ = "shadow_decisions"
    __table_args__ = (
        UniqueConstraint("job", "subject", "decision"),
        Index("shadow_decisions_by_time", "job", "last_seen_at"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    job: Mapped[str]
    subject: Mapped[str]
    decision: Mapped[str]
    detail: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    times: Mapped[int] = mapped_column(INT, server_default="1")
    first_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
