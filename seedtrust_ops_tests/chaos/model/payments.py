"""The payments that the model generates: valid ones, those that preflight must reject, and the legacy worker's.

They are inserted into the platform's tables as its applications would do it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from sqlalchemy import update

from seedtrust_ops.tables import Case, DisbursementRequest, HuntingtonBatch, HuntingtonTransaction, User
from seedtrust_ops_tests.support.factories import ROUTING_NUMBER, BuiltCase, Company

CASES = 3
BALANCE_CENTS = 200_000
LONG_AGO = timedelta(days=1)
ROLES = ("escrow_specialist", "case_manager", "admin")
FLAWS = ("bad routing", "refused", "same request", "denied", "another amount", "no request", "damaged number")


@dataclass(frozen=True)
class Payment:
    """One payment to make: its case (an index), amount, method, and what is wrong with it, if anything."""

    case: int
    cents: int
    method: str
    flaw: str | None


payments = st.builds(
    Payment,
    case=st.integers(0, CASES - 1),
    # Small amounts, and some so large that a few of them exceed the account balance.
    cents=st.one_of(st.integers(1, 20_000), st.integers(50_000, 150_000)),
    method=st.sampled_from(("wire", "ach", "ach")),
    flaw=st.one_of(st.none(), st.none(), st.sampled_from(FLAWS)),
)
several_payments = st.one_of(st.lists(payments, min_size=1, max_size=4), st.lists(payments, min_size=8, max_size=14))


class Payments:
    """Inserts payments into one company's tables and keeps the ids of their disbursement requests."""

    def __init__(self, company: Company) -> None:
        self._company = company
        self._cases: list[BuiltCase] = [company.case(balance_cents=BALANCE_CENTS) for _ in range(CASES)]
        self._add_managers_and_admins()
        self.requests: list[int] = []

    def _add_managers_and_admins(self) -> None:
        """Give every case but the first a case manager, and the company two admins."""
        with self._company.sessions.begin() as session:
            managers = [_user("case_manager", number) for number in range(1, CASES)]
            session.add_all([*managers, *(_user("admin", number) for number in (1, 2))])
            session.flush()
            for case, manager in zip(self._cases[1:], managers, strict=True):
                session.execute(update(Case).where(Case.id == case.case_id).values(case_manager_id=manager.id))

    def new_batch(self, wanted: Sequence[Payment], now: datetime, **columns: Any) -> int:
        """Create a batch of these payments, queued unless `columns` say otherwise; return its id."""
        with self._company.sessions.begin() as session:
            batch = HuntingtonBatch(**({"status": "queued", "queued_at": now, "created_at": now} | columns))
            session.add(batch)
            session.flush()
            batch_id = batch.id
        self.add(batch_id, wanted, now)
        return batch_id

    def add(self, batch_id: int, wanted: Sequence[Payment], now: datetime, **columns: Any) -> list[int]:
        """Add payments to a batch; return the ids of their transactions."""
        with self._company.sessions.begin() as session:
            rows = []
            for payment in wanted:
                request_id = None
                if payment.flaw == "same request" and self.requests:
                    request_id = self.requests[payment.cents % len(self.requests)]
                elif payment.flaw != "no request":
                    request = self._request(payment)
                    session.add(request)
                    session.flush()
                    request_id = request.id
                    self.requests.append(request_id)
                rows.append(self._transaction(batch_id, request_id, payment, now, columns))
            session.add_all(rows)
            session.flush()
            return [row.id for row in rows]

    def _request(self, payment: Payment) -> DisbursementRequest:
        case = self._cases[payment.case]
        return DisbursementRequest(
            case_id=case.case_id,
            payee_id=case.payee_id,
            amount_cents=payment.cents + (payment.flaw == "another amount"),
            category="monthly allowance",
            status="denied" if payment.flaw == "denied" else "approved",
        )

    def _transaction(
        self, batch_id: int, request_id: int | None, payment: Payment, now: datetime, columns: dict[str, Any]
    ) -> HuntingtonTransaction:
        refused = payment.flaw == "refused"
        # Not the number that is refused for lack of funds: the account has them, unless it has run dry.
        number = f"422000000{(1, 2, 4)[payment.cents % 3]}" if refused else str(4_000_000_000 + payment.cents)
        token = "damaged" if payment.flaw == "damaged number" else self._company.cipher.encrypt(number)
        defaults = {
            "method": payment.method,
            "payee_name": "Dana Whitfield",
            "routing_number": "123456789" if payment.flaw == "bad routing" else ROUTING_NUMBER,
            "account_number_encrypted": token,
            "account_number_last4": number[-4:],
            "account_type": "checking",
            "updated_at": now,
        }
        return HuntingtonTransaction(
            batch_id=batch_id,
            disbursement_request_id=request_id,
            amount_cents=payment.cents,
            **(defaults | columns),
        )


def _user(role: str, number: int) -> User:
    return User(email=f"{role}-{number}@office.test", full_name=f"{role} {number}", role=role)
