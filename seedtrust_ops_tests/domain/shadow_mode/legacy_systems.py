"""Fakes of the two legacy systems: they change the platform's tables row by row, with one commit per row.

Their code is not in this project. The assumptions are those of docs/cutover.md: a row is read again before it is
changed, and a row that another process is working on is skipped.
"""

import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.sandbox.bank.control_client import SandboxBank
from seedtrust_ops.tables import (
    Account,
    ApprovalRule,
    Case,
    DisbursementRequest,
    HuntingtonBatch,
    HuntingtonTransaction,
    LedgerEntry,
    ReportRequest,
    User,
    ViewingDisbursementRequest,
    ViewingPayment,
)

TIMEOUT = "timeout: no answer from Huntington within 30 s"


@dataclass
class LegacySystems:
    """Both legacy systems on one database; `emails` are what they sent, for the mail provider's log."""

    sessions: sessionmaker[Session]
    bank: SandboxBank
    emails: list[tuple[datetime, str, str]] = field(default_factory=list)
    reports_built: list[int] = field(default_factory=list)
    skipped_requests: set[int] = field(default_factory=set)
    """Requests that they never approve, even if due."""

    def approve_due(self) -> None:
        """The cron job_dr_approval."""
        due = select(DisbursementRequest.id).where(
            DisbursementRequest.status == "pending",
            ~DisbursementRequest.on_hold,
            DisbursementRequest.auto_authorize_at <= func.now(),
        )
        for request_id in self._ids(due):
            self._approve(request_id, "auto:date")

    def approve_by_rules(self) -> None:
        """FastAPI's bulk auto-approver."""
        pending = select(DisbursementRequest.id).where(
            DisbursementRequest.status == "pending", ~DisbursementRequest.on_hold
        )
        for request_id in self._ids(pending.order_by(DisbursementRequest.requested_at, DisbursementRequest.id)):
            rule_id = self._first_rule(request_id)
            if rule_id is not None:
                self._approve(request_id, f"auto:rule:{rule_id}")

    def approve(self, request_id: int, approved_by: str) -> None:
        """Approve one request without any check."""
        self.update_row(
            DisbursementRequest, request_id, status="approved", approved_at=func.now(), approved_by=approved_by
        )

    def generate_reports(self, build: Callable[[int], bool] = lambda _request: True) -> None:
        """The cron job_report_generation; `build` returns whether the report could be built."""
        pending = select(ReportRequest.id).where(ReportRequest.status == 1)
        for request_id in self._ids(pending.order_by(ReportRequest.id)):
            if not self._claim_row(ReportRequest, request_id, from_status=1, to_status=2, started_at=func.now()):
                continue
            built = build(request_id)
            self.reports_built.append(request_id)
            self.update_row(
                ReportRequest,
                request_id,
                status=3 if built else 4,
                finished_at=func.now(),
                error=None if built else "Traceback (most recent call last)",
            )

    def send_case_close_reminders(self, today: date) -> None:
        """The cron for case-close reminders."""
        closing = select(User.email).join(Case, Case.escrow_specialist_id == User.id)
        with self.sessions() as session:
            query = closing.where(Case.status != "closed", Case.close_on == today, User.is_active)
            addresses = session.scalars(query).all()
        self.emails += [(datetime.now(UTC), "case-close", address) for address in addresses]

    def send_balance_reminders(self) -> None:
        """The cron for low balances: one email to each case manager concerned and to each admin."""
        low = (
            select(Case.case_manager_id)
            .join(Account, Account.case_id == Case.id)
            .where(Case.status == "active", Account.balance_cents < Account.minimum_balance_cents)
        )
        with self.sessions() as session:
            managers = set(session.scalars(low))
            people = session.scalars(
                select(User.email).where(User.is_active, or_(User.role == "admin", User.id.in_(managers)))
            ).all()
        if managers:
            self.emails += [(datetime.now(UTC), "balance-reminder", address) for address in people]

    def clear_presence(self) -> None:
        """The cron for off-site tracking."""
        for user_id in self._ids(select(User.id).where(User.is_on_site)):
            self.update_row(User, user_id, is_on_site=False)
        for table in (ViewingDisbursementRequest, ViewingPayment):
            with self.sessions.begin() as session:
                for row in session.scalars(select(table).with_for_update(skip_locked=True)):
                    session.delete(row)

    def send_batch(self, batch_id: int, *, times_out: Collection[int] = (), lost: Collection[int] = ()) -> bool:
        """Huey's PROCESS_HUNTINGTON_BATCH; returns whether it claimed the batch.

        Args:
            batch_id: the batch in the Redis queue.
            times_out: transactions that the bank accepts and the worker sets to failed after a timeout.
            lost: transactions that the worker sets to failed and the bank never received.
        """
        if not self._claim_row(
            HuntingtonBatch, batch_id, from_status="queued", to_status="processing", started_at=func.now()
        ):
            return False
        in_batch = select(HuntingtonTransaction.id).where(HuntingtonTransaction.batch_id == batch_id)
        for transaction_id in self._ids(in_batch.order_by(HuntingtonTransaction.id)):
            if self._claim_row(HuntingtonTransaction, transaction_id, from_status="pending", to_status="processing"):
                self._send(transaction_id, times_out=transaction_id in times_out, is_lost=transaction_id in lost)
        self.update_row(HuntingtonBatch, batch_id, status="completed", finished_at=func.now())
        return True

    def heal(self) -> None:
        """Huey's auto_heal_huntington_batches_periodic: looks up open transactions one by one."""
        bank_statuses = {transfer["reference"]: transfer["status"] for transfer in self.bank.ledger()["transfers"]}
        is_open = HuntingtonTransaction.status.in_(("submitted", "processing"))
        for transaction_id in self._ids(select(HuntingtonTransaction.id).where(is_open)):
            if bank_statuses.get(str(transaction_id)) == "completed":
                self._book(transaction_id)

    def _send(self, transaction_id: int, *, times_out: bool, is_lost: bool) -> None:
        with self.sessions() as session:
            transaction = session.get_one(HuntingtonTransaction, transaction_id)
        status = "completed" if transaction.method == "wire" else "accepted"
        if not is_lost:
            self.bank.insert_transfer(
                str(transaction_id),
                transaction.amount_cents,
                idempotency_key=f"legacy-{secrets.token_hex(12)}",
                method=transaction.method,
                status=status,
            )
        if times_out or is_lost:
            self.update_row(HuntingtonTransaction, transaction_id, status="failed", failure_reason=TIMEOUT)
        elif status == "completed":
            self._book(transaction_id)
        else:
            self.update_row(HuntingtonTransaction, transaction_id, status="submitted", updated_at=func.now())

    def _book(self, transaction_id: int) -> None:
        """Post a completed transfer unless it is posted already; retried after a deadlock."""
        run_in_transaction(self.sessions, lambda session: _book(session, transaction_id))

    def _approve(self, request_id: int, approved_by: str) -> None:
        if request_id not in self.skipped_requests and self._claim_row(
            DisbursementRequest,
            request_id,
            from_status="pending",
            to_status="approved",
            approved_at=func.now(),
            approved_by=approved_by,
        ):
            self.emails.append((datetime.now(UTC), "dr-approved", str(request_id)))

    def _first_rule(self, request_id: int) -> int | None:
        with self.sessions() as session:
            request = session.get_one(DisbursementRequest, request_id)
            case = session.get_one(Case, request.case_id)
            if case.status == "closed" or not session.get_one(User, request.payee_id).is_active:
                return None
            account = session.scalars(select(Account).where(Account.case_id == case.id)).one()
            unpaid = session.scalar(
                select(func.coalesce(func.sum(DisbursementRequest.amount_cents), 0)).where(
                    DisbursementRequest.case_id == case.id, DisbursementRequest.status == "approved"
                )
            )
            available = account.balance_cents - account.minimum_balance_cents - int(unpaid or 0)
            enabled = select(ApprovalRule).where(ApprovalRule.is_enabled)
            for rule in session.scalars(enabled.order_by(ApprovalRule.position, ApprovalRule.id)):
                if rule.category not in (None, request.category) or request.amount_cents > rule.max_amount_cents:
                    continue
                if rule.keep_minimum_balance and request.amount_cents > available:
                    continue
                if rule.daily_limit_cents is not None:
                    used = session.scalar(
                        select(func.coalesce(func.sum(DisbursementRequest.amount_cents), 0)).where(
                            DisbursementRequest.approved_by == f"auto:rule:{rule.id}",
                            DisbursementRequest.approved_at >= func.now() - func.make_interval(0, 0, 0, 0, 6),
                        )
                    )
                    if int(used or 0) + request.amount_cents > rule.daily_limit_cents:
                        continue
                return rule.id
        return None

    def _ids(self, query: Any) -> list[int]:
        with self.sessions() as session:
            return list(session.scalars(query))

    def _claim_row(self, table: Any, row_id: int, *, from_status: object, to_status: object, **values: Any) -> bool:
        """Change one row if it still has the status that was read, and commit; return whether it did."""
        with self.sessions.begin() as session:
            updated_id = session.scalar(
                update(table)
                .where(table.id == row_id, table.status == from_status)
                .values(status=to_status, **values)
                .returning(table.id)
            )
        return updated_id is not None

    def update_row(self, table: Any, row_id: int, **values: Any) -> None:
        """Change one row unconditionally."""
        with self.sessions.begin() as session:
            session.execute(update(table).where(table.id == row_id).values(**values))


def _book(session: Session, transaction_id: int) -> None:
    transaction = session.scalars(
        select(HuntingtonTransaction).where(HuntingtonTransaction.id == transaction_id).with_for_update()
    ).one()
    if transaction.status == "completed":
        return
    transaction.status = "completed"
    request = session.get_one(DisbursementRequest, transaction.disbursement_request_id)
    account = session.scalars(select(Account).where(Account.case_id == request.case_id).with_for_update()).one()
    account.balance_cents -= transaction.amount_cents
    session.add(
        LedgerEntry(
            account_id=account.id,
            amount_cents=-transaction.amount_cents,
            kind="disbursement",
            huntington_transaction_id=transaction.id,
        )
    )
    request.status, request.paid_at = "paid", func.now()
