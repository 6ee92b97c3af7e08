"""Huntington batches and transactions (platform tables).

Account numbers are stored only as Fernet tokens. Status changes are decided in `domain/transfers/`.
"""

from datetime import datetime

from sqlalchemy import ForeignKey, Identity, func
from sqlalchemy.orm import Mapped, mapped_column

from seedtrust_ops.tables.base import INT, PlatformTable
from seedtrust_ops.tables.disbursements import DisbursementRequest
from seedtrust_ops.tables.users_and_cases import User


class HuntingtonBatch(PlatformTable):
    """A set of transactions that operations staff queue for sending together."""

    __tablename__ = "huntington_batches"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    status: Mapped[str] = mapped_column(server_default="draft")
    priority: Mapped[int] = mapped_column(INT, server_default="0")
    created_by: Mapped[int | None] = mapped_column(ForeignKey(User.id))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    error: Mapped[str | None]


class HuntingtonTransaction(PlatformTable):
    """One ACH or wire transfer to one payee."""

    __tablename__ = "huntington_transactions"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    batch_id: Mapped[int] = mapped_column(ForeignKey(HuntingtonBatch.id), index=True)
    disbursement_request_id: Mapped[int | None] = mapped_column(ForeignKey(DisbursementRequest.id))
    method: Mapped[str]
    amount_cents: Mapped[int]
    payee_name: Mapped[str]
    routing_number: Mapped[str]
    account_number_encrypted: Mapped[str]
    account_number_last4: Mapped[str]
    account_type: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="pending")
    failure_reason: Mapped[str | None]
    bank_transfer_id: Mapped[str | None]
    completed_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
