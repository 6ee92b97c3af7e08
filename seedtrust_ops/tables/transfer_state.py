"""What `ops` keeps to move money safely: leases on batches, attempts at transfers, the feed's cursor, switches.

All of it is this project's own; the platform's applications need not know that it exists.
"""

from datetime import datetime

from sqlalchemy import Identity, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from seedtrust_ops.tables.base import INT, OpsTable


class BatchLease(OpsTable):
    """Who may write about a batch, and until when; one row a batch, kept after the lease has ended.

    `token` is null while nobody holds the batch. `generation` counts the claims so far: it is what
    tells a batch that was queued again from one whose run was asked for already.
    """

    __tablename__ = "batch_leases"

    batch_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    token: Mapped[str | None]
    holder: Mapped[str]
    generation: Mapped[int] = mapped_column(server_default="1")
    acquired_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]


class TransferAttempt(OpsTable):
    """One fact about one attempt at a transfer: that it was started, or what came of it.

    Append-only, and a trigger holds it so: an attempt has a row with outcome `started`, committed before
    the request leaves, and later a row with what became of it (`finished_at` set). `attempt` counts the
    requests for one transaction from 1.
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
    """How far the bank's feed of changed transfers has been read (`name` is the bank's)."""

    __tablename__ = "bank_feed_cursors"

    name: Mapped[str] = mapped_column(primary_key=True)
    read_up_to: Mapped[datetime]
    last_read_at: Mapped[datetime]


class Switch(OpsTable):
    """A switch that is on because its row is there; `transfers_halted` stops all sending."""

    __tablename__ = "switches"

    name: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str] = mapped_column(server_default="no reason given")
    set_by: Mapped[str] = mapped_column(server_default="unknown")
    set_at: Mapped[datetime] = mapped_column(server_default=func.now())
