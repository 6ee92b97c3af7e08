"""Escrow accounts and their ledger (platform tables); amounts are integer cents.

An account's balance must always equal the sum of its ledger entries, so every posting updates both.
"""

from datetime import datetime

from sqlalchemy import ForeignKey, Identity, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from seedtrust_ops.tables.base import PlatformTable
from seedtrust_ops.tables.huntington import HuntingtonTransaction
from seedtrust_ops.tables.users_and_cases import Case


class Account(PlatformTable):
    """The one escrow account of a case."""

    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    case_id: Mapped[int] = mapped_column(ForeignKey(Case.id), unique=True)
    balance_cents: Mapped[int] = mapped_column(server_default="0")
    minimum_balance_cents: Mapped[int] = mapped_column(server_default="0")


class LedgerEntry(PlatformTable):
    """One ledger entry of an account: credits are positive, debits are negative."""

    __tablename__ = "ledger_entries"
    __table_args__ = (Index(None, "account_id", "posted_at"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey(Account.id))
    amount_cents: Mapped[int]
    kind: Mapped[str]
    huntington_transaction_id: Mapped[int | None] = mapped_column(ForeignKey(HuntingtonTransaction.id))
    memo: Mapped[str] = mapped_column(server_default="")
    posted_at: Mapped[datetime] = mapped_column(server_default=func.now())
