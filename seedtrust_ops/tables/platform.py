"""The platform's tables in schema `public`, which SeedTrust's applications own; amounts are integer cents.

Users and cases, disbursement requests, Huntington batches, accounts and their ledger, report requests, and JobRun.
A text column without a check constraint is a `Typed` one: what is loaded of it is cut in the database.
"""

from datetime import date, datetime
from typing import Annotated, Any

from sqlalchemy import ForeignKey, Identity, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from seedtrust_ops.tables.base import INT, SMALL, PlatformTable
from seedtrust_ops.tables.user_text import UserJson, UserText

Typed = Annotated[str, mapped_column(UserText())]
"""Text that people typed; see `tables.user_text`."""


MAX_TRACEBACK_CHARS = 20_000
"""Its end says what failed, so it gets more than other texts."""


class User(PlatformTable):
    """A person with a SeedTrust login; `role` is their role, such as admin or case manager.

    This project reads users, cases and case parties to find the recipients of email; it changes only `is_on_site`.
    """

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    email: Mapped[Typed] = mapped_column(unique=True)
    full_name: Mapped[Typed]
    role: Mapped[str]
    is_active: Mapped[bool] = mapped_column(server_default=text("true"))
    is_on_site: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Case(PlatformTable):
    """One surrogacy journey, with the staff responsible for it."""

    __tablename__ = "cases"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    case_number: Mapped[Typed] = mapped_column(unique=True)
    status: Mapped[str] = mapped_column(server_default="active")
    close_on: Mapped[date | None]
    escrow_specialist_id: Mapped[int | None] = mapped_column(ForeignKey(User.id))
    case_manager_id: Mapped[int | None] = mapped_column(ForeignKey(User.id))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class CaseParty(PlatformTable):
    """A user's role in a case: intended parent, IP representative, or surrogate."""

    __tablename__ = "case_parties"

    case_id: Mapped[int] = mapped_column(ForeignKey(Case.id), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id), primary_key=True)
    role: Mapped[str] = mapped_column(primary_key=True)


class DisbursementRequest(PlatformTable):
    """A request to pay one payee of one case ('DR').

    It is approved or denied, and paid by at most one Huntington transaction.
    """

    __tablename__ = "disbursement_requests"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    case_id: Mapped[int] = mapped_column(ForeignKey(Case.id))
    payee_id: Mapped[int] = mapped_column(ForeignKey(User.id))
    amount_cents: Mapped[int]
    category: Mapped[Typed]
    description: Mapped[Typed] = mapped_column(server_default="")
    status: Mapped[str] = mapped_column(server_default="pending")
    auto_authorize_at: Mapped[datetime | None]
    on_hold: Mapped[bool] = mapped_column(server_default=text("false"))
    requested_at: Mapped[datetime] = mapped_column(server_default=func.now())
    approved_at: Mapped[datetime | None]
    approved_by: Mapped[Typed | None]
    paid_at: Mapped[datetime | None]


class ApprovalRule(PlatformTable):
    """An approval rule; the first matching rule by `position` approves a request."""

    __tablename__ = "approval_rules"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[Typed]
    is_enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    position: Mapped[int] = mapped_column(INT, server_default="0")
    category: Mapped[Typed | None]
    payee_id: Mapped[int | None] = mapped_column(ForeignKey(User.id))
    case_id: Mapped[int | None] = mapped_column(ForeignKey(Case.id))
    max_amount_cents: Mapped[int]
    keep_minimum_balance: Mapped[bool] = mapped_column(server_default=text("true"))
    daily_limit_cents: Mapped[int | None]


class HuntingtonBatch(PlatformTable):
    """A set of transactions that operations staff queue for sending together.

    `domain/transfers/` decides the status changes of batches and transactions.
    """

    __tablename__ = "huntington_batches"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    status: Mapped[str] = mapped_column(server_default="draft")
    priority: Mapped[int] = mapped_column(INT, server_default="0")
    created_by: Mapped[int | None] = mapped_column(ForeignKey(User.id))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    error: Mapped[Typed | None]


class HuntingtonTransaction(PlatformTable):
    """One ACH or wire transfer to one payee; the account number is stored only as a Fernet token."""

    __tablename__ = "huntington_transactions"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    batch_id: Mapped[int] = mapped_column(ForeignKey(HuntingtonBatch.id), index=True)
    disbursement_request_id: Mapped[int | None] = mapped_column(ForeignKey(DisbursementRequest.id))
    method: Mapped[str]
    amount_cents: Mapped[int]
    payee_name: Mapped[Typed]
    routing_number: Mapped[Typed]
    account_number_encrypted: Mapped[Typed]
    account_number_last4: Mapped[Typed]
    account_type: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="pending")
    failure_reason: Mapped[Typed | None]
    bank_transfer_id: Mapped[Typed | None]
    completed_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Account(PlatformTable):
    """The one escrow account of a case.

    Its balance must always equal the sum of its ledger entries, so every posting updates both.
    """

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
    memo: Mapped[Typed] = mapped_column(server_default="")
    posted_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ReportRequest(PlatformTable):
    """A request for a report; its status is 1 pending, 2 in progress, 3 emailed, or 4 failed."""

    __tablename__ = "report_requests"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id))
    kind: Mapped[Typed]
    params: Mapped[dict[str, Any]] = mapped_column(UserJson(), server_default="{}")
    format: Mapped[str] = mapped_column(server_default="xlsx")
    status: Mapped[int] = mapped_column(SMALL, server_default="1")
    requested_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    error: Mapped[Typed | None]


class JobRun(PlatformTable):
    """One run of one task; `run_id` is the Dagster run, `task_name` the Dagster job.

    All of the company's dashboards read it. `monitoring/` writes it from Dagster's run records; jobs do not write it.
    """

    __tablename__ = "job_runs"
    __table_args__ = (Index(None, "status", "queued_at"), Index(None, "task_name", "queued_at"))

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    run_id: Mapped[Typed] = mapped_column(unique=True)
    task_name: Mapped[Typed]
    status: Mapped[str]
    resolution: Mapped[str | None]
    arguments: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    result: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    error: Mapped[Typed | None]
    priority: Mapped[int] = mapped_column(INT, server_default="0")
    retries: Mapped[int] = mapped_column(INT, server_default="0")
    queued_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ErrorRecord(PlatformTable):
    """One failure of a task or component, with its severity."""

    __tablename__ = "errors"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    job_run_id: Mapped[int | None] = mapped_column(ForeignKey(JobRun.id))
    source: Mapped[Typed]
    severity: Mapped[str]
    exception_type: Mapped[Typed]
    message: Mapped[Typed]
    traceback: Mapped[str | None] = mapped_column(UserText(MAX_TRACEBACK_CHARS))
    context: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    occurred_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ViewingDisbursementRequest(PlatformTable):
    """A user has a disbursement request open on screen; the rows are short-lived, and no decision depends on them."""

    __tablename__ = "viewing_drs"

    user_id: Mapped[int] = mapped_column(ForeignKey(User.id), primary_key=True)
    disbursement_request_id: Mapped[int] = mapped_column(ForeignKey(DisbursementRequest.id), primary_key=True)
    since: Mapped[datetime] = mapped_column(server_default=func.now())


class ViewingPayment(PlatformTable):
    """A user has a Huntington transaction open on screen; short-lived like `ViewingDisbursementRequest`."""

    __tablename__ = "viewing_payments"

    user_id: Mapped[int] = mapped_column(ForeignKey(User.id), primary_key=True)
    huntington_transaction_id: Mapped[int] = mapped_column(ForeignKey(HuntingtonTransaction.id), primary_key=True)
    since: Mapped[datetime] = mapped_column(server_default=func.now())
