"""The same work as the cron server did it: a loop over rows loaded one by one, with one or more queries for each."""

import csv
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.tables import Account, Case, CaseParty, DisbursementRequest, LedgerEntry, Notification, User

NOTIFIED_ROLES = ("intended_parent", "ip_rep")


def approve(sessions: sessionmaker[Session]) -> None:
    """Approve the requests that are due and queue their emails, with one commit per request."""
    with sessions() as session:
        due = list(
            session.scalars(
                select(DisbursementRequest.id).where(
                    DisbursementRequest.status == "pending",
                    DisbursementRequest.auto_authorize_at <= datetime.now(UTC),
                    ~DisbursementRequest.on_hold,
                )
            )
        )
        for request_id in due:
            request = session.get_one(DisbursementRequest, request_id)
            case, payee = session.get_one(Case, request.case_id), session.get_one(User, request.payee_id)
            if case.status == "closed" or not payee.is_active:
                continue
            request.status, request.approved_at, request.approved_by = "approved", datetime.now(UTC), "auto:date"
            parties = session.scalars(
                select(CaseParty.user_id).where(CaseParty.case_id == case.id, CaseParty.role.in_(NOTIFIED_ROLES))
            )
            for user_id in {*parties, case.case_manager_id} - {None}:
                user = session.get_one(User, user_id)
                session.add(
                    Notification(
                        dedupe_key=f"dr-approved:{request.id}:{user.id}",
                        kind="dr-approved",
                        recipient_id=user.id,
                        recipient_email=user.email,
                        subject="",
                        variables={"case_number": case.case_number, "payee_name": payee.full_name},
                    )
                )
            session.commit()


def check_balances(sessions: sessionmaker[Session]) -> list[tuple[str, int, int]]:
    """Return case number, ledger sum and shortfall (cents) of every active case."""
    rows = []
    with sessions() as session:
        for case in session.scalars(select(Case).where(Case.status == "active")):
            account = session.scalars(select(Account).where(Account.case_id == case.id)).one()
            entries = session.scalar(
                select(func.coalesce(func.sum(LedgerEntry.amount_cents), 0)).where(LedgerEntry.account_id == account.id)
            )
            shortfall = max(account.minimum_balance_cents - account.balance_cents, 0)
            rows.append((case.case_number, int(entries or 0), shortfall))
    return rows


def report(sessions: sessionmaker[Session], path: Path) -> None:
    """Write a CSV file of all accounts."""
    with sessions() as session, path.open("w", newline="") as file:
        writer = csv.writer(file)
        for account_id in session.scalars(select(Account.id)).all():
            account = session.get_one(Account, account_id)
            case = session.get_one(Case, account.case_id)
            manager = session.get_one(User, case.case_manager_id)
            writer.writerow([case.case_number, manager.full_name, account.balance_cents, account.minimum_balance_cents])
