"""Disbursement requests and approval rules (platform tables).

A request is approved or denied, and paid by at most one Huntington transaction.
"""

from datetime import datetime

from sqlalchemy import ForeignKey, Identity, func, text
from sqlalchemy.orm import Mapped, mapped_column

from seedtrust_ops.tables.base import INT, PlatformTable
from seedtrust_ops.tables.users_and_cases import Case, User


class DisbursementRequest(PlatformTable):
    """A request to pay one payee of one case ('DR')."""

    __tablename__ = "disbursement_requests"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    case_id: Mapped[int] = mapped_column(ForeignKey(Case.id))
    payee_id: Mapped[int] = mapped_column(ForeignKey(User.id))
    amount_cents: Mapped[int]
    category: Mapped[str]
    description: Mapped[str] = mapped_column(server_default="")
    status: Mapped[str] = mapped_column(server_default="pending")
    auto_authorize_at: Mapped[datetime | None]
    on_hold: Mapped[bool] = mapped_column(server_default=text("false"))
    requested_at: Mapped[datetime] = mapped_column(server_default=func.now())
    approved_at: Mapped[datetime | None]
    approved_by: Mapped[str | None]
    paid_at: Mapped[datetime | None]


class ApprovalRule(PlatformTable):
    """An approval rule; the first matching rule by `position` approves a request."""

    __tablename__ = "approval_rules"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str]
    is_enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    position: Mapped[int] = mapped_column(INT, server_default="0")
    category: Mapped[str | None]
    payee_id: Mapped[int | None] = mapped_column(ForeignKey(User.id))
    case_id: Mapped[int | None] = mapped_column(ForeignKey(Case.id))
    max_amount_cents: Mapped[int]
    keep_minimum_balance: Mapped[bool] = mapped_column(server_default=text("true"))
    daily_limit_cents: Mapped[int | None]
