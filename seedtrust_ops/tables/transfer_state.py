"""State of schema `ops` for moving money safely: batch leases, transfer attempts, the feed cursor, switches.

The platform's applications do not use these tables.
"""

from datetime import datetime

from sqlalchemy import Identity, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from seedtrust_ops.tables.base import INT, OpsTable


class BatchLease(OpsTable):
    """The lease on a batch: who may write to it and until when. One row per batch, kept after the lease ends.

    `token` is null if nobody holds the lease. `generation` counts the claims so far; it distinguishes a batch that
    was queued again from one whose run was already requested.
    """

    __tablename__ = "batch_leases"

    batch_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    token: Mapped[str | None]
    holder: Mapped[str]
    generation: Mapped[int] = mapped_column(server_default="1")
    acquired_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]


class TransferAttempt(OpsTable):
    """One event of an attempt to send a transfer: its start or its outcome.

    The table is append-only, enforced by a trigger. An attempt has a row with outcome `started`, committed before the
    request is sent, and later a row with its outcome (`finished_at` set). `attempt` counts the requests for one
    transaction from 1.
    """

    __tablename__ = "transfer_attempts"
    __table_args__ = (
        Index("transfer_attempts_by_transaction", "transaction_id", "id"),
        Index("transfer_attempts_by_finished_at", "finished_at", postgresql_where=text("bank_transfer_id IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    transaction_id: Mapped[int]
    idempotency_key: Mapped[str]
    attempt: Mapped[int] = mapped_column(INT)
    outcome: Mapped[str]
    bank_transfer_id: Mapped[str | None]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    detail: Mapped[str | None]


class BankFeedCursor(OpsTable):
    """How far the bank's feed of changed transfers has been read; `name` is the bank."""

    __tablename__ = "bank_feed_cursors"

    name: Mapped[str] = mapped_column(primary_key=True)
    read_up_to: Mapped[datetime]
    last_read_at: Mapped[datetime]


class Switch(OpsTable):
    """A switch that is on while its row exists; `transfers_halted` stops all sending."""

    __tablename__ = "switches"

    name: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str] = mapped_column(server_default="no reason given")
    set_by: Mapped[str] = mapped_column(server_default="unknown")
    set_at: Mapped[datetime] = mapped_column(server_default=func.now())
