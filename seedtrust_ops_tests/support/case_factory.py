"""Creates the rows that tests of approvals and reminders need: users, cases with parties, requests and approval rules.

Every column has a valid default. Batches and transactions are in `factories`.
"""

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.tables import Account, ApprovalRule, Case, CaseParty, DisbursementRequest, Notification, User

_numbers = itertools.count(1)


@dataclass(frozen=True)
class CaseWithParties:
    """The ids of a created case, its account and everyone involved in it."""

    case_id: int
    account_id: int
    case_number: str
    parent_id: int
    rep_id: int
    surrogate_id: int
    manager_id: int
    specialist_id: int


class CaseFactory:
    """Creates rows in one database and reads back what the jobs changed."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self.sessions = sessions

    def user(self, role: str, **columns: Any) -> int:
        number = next(_numbers)
        return self._add(
            User(**({"email": f"{role}{number}@office.test", "full_name": f"{role} {number}", "role": role} | columns))
        )

    def case(
        self, *, balance_cents: int = 10_000_000, minimum_balance_cents: int = 0, **columns: Any
    ) -> CaseWithParties:
        """Create a case with one intended parent, IP rep, surrogate, case manager and escrow specialist, all active."""
        parent, rep, surrogate = (self.user(role) for role in ("intended_parent", "ip_rep", "surrogate"))
        columns = {
            "case_number": f"ST-{next(_numbers)}",
            "case_manager_id": self.user("case_manager") if "case_manager_id" not in columns else None,
            "escrow_specialist_id": self.user("escrow_specialist") if "escrow_specialist_id" not in columns else None,
        } | columns
        case_id = self._add(Case(**columns))
        with self.sessions.begin() as session:
            for user_id, role in ((parent, "intended_parent"), (rep, "ip_rep"), (surrogate, "surrogate")):
                session.add(CaseParty(case_id=case_id, user_id=user_id, role=role))
        account_id = self._add(
            Account(case_id=case_id, balance_cents=balance_cents, minimum_balance_cents=minimum_balance_cents)
        )
        return CaseWithParties(
            case_id,
            account_id,
            columns["case_number"],
            parent,
            rep,
            surrogate,
            columns["case_manager_id"],
            columns["escrow_specialist_id"],
        )

    def request(self, case: CaseWithParties, amount_cents: int = 10_000, **columns: Any) -> int:
        """Create a pending request that pays the case's surrogate and was due an hour ago; return its id."""
        now = datetime.now(UTC)
        return self._add(
            DisbursementRequest(
                **(
                    {
                        "case_id": case.case_id,
                        "payee_id": case.surrogate_id,
                        "amount_cents": amount_cents,
                        "category": "travel",
                        "auto_authorize_at": now - timedelta(hours=1),
                        "requested_at": now - timedelta(days=3),
                    }
                    | columns
                )
            )
        )

    def rule(self, **columns: Any) -> int:
        """Create an approval rule that matches every request up to $1,000,000 and ignores balances; return its id."""
        return self._add(
            ApprovalRule(
                **({"name": "Everything", "max_amount_cents": 100_000_000, "keep_minimum_balance": False} | columns)
            )
        )

    def change(self, table: type[Any], row_id: int, **columns: Any) -> None:
        with self.sessions.begin() as session:
            row = session.get_one(table, row_id)
            for name, value in columns.items():
                setattr(row, name, value)

    def approvals(self) -> dict[int, str | None]:
        """Return who approved each approved request, by request id."""
        with self.sessions() as session:
            rows = session.execute(
                select(DisbursementRequest.id, DisbursementRequest.approved_by)
                .where(DisbursementRequest.status == "approved")
                .order_by(DisbursementRequest.id)
            )
            return {row.id: row.approved_by for row in rows}

    def emails(self) -> dict[str, Notification]:
        """Return every email in the outbox by its dedupe key."""
        with self.sessions() as session:
            return {row.dedupe_key: row for row in session.scalars(select(Notification).order_by(Notification.id))}

    def _add(self, row: Any) -> int:
        with self.sessions.begin() as session:
            session.add(row)
            session.flush()
            row_id: int = row.id
        return row_id
