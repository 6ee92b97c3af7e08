"""Generates a case's money: requests in every state, past payments, and a ledger that balances to the cent.

Deposits are generated last, so that every account covers its approved requests. Users and cases are in `company`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from seedtrust_ops.sandbox.seed.names import payee_account
from seedtrust_ops.sandbox.seed.rows import CompanyRows

Encrypt = Callable[[str], str]

# Category, minimum and maximum in cents.
CATEGORIES = (
    ("monthly allowance", 20_000, 35_000),
    ("base compensation", 250_000, 400_000),
    ("maternity clothing", 30_000, 80_000),
    ("travel", 15_000, 180_000),
    ("medical bills", 8_000, 250_000),
    ("legal fees", 90_000, 250_000),
    ("life insurance", 25_000, 60_000),
    ("lost wages", 60_000, 200_000),
    ("childcare", 10_000, 40_000),
)
MINIMUMS = (500_000, 750_000, 1_000_000, 1_500_000)
PAYDAYS = 12
"""Number of past weekly paydays; all within the 90 days that the first read of the bank's feed covers."""
MAX_BATCH_SIZE = 200
RETURN_CODES = ("R01", "R02", "R03")
ROTATION = ("overdue", "held", "denied", "cancelled", "undated")
PLANS = {
    "active": ("paid", "paid", "paid", "approved", "approved", "future"),
    "closing": ("paid", "paid", "paid", "paid", "approved", "future"),
    "closed": ("paid", "paid", "paid", "paid", "paid", "denied", "cancelled"),
}


@dataclass(frozen=True)
class PastPayment:
    """A past transaction; `status` is completed, returned or failed, `payday` is its age in weeks."""

    request_id: int
    account_id: int
    payee_name: str
    method: str
    amount_cents: int
    status: str
    reason: str | None
    payday: int


class PastPayments:
    """Collects the past payments of all cases and puts them into one batch or more per payday."""

    def __init__(self, rng: Random, now: datetime, admins: list[int]) -> None:
        self._rng = rng
        self._now = now
        self._admins = admins
        self._payments: list[PastPayment] = []

    def paid_at(self, payday: int) -> datetime:
        """Return when the payments of a payday completed."""
        return self._now - timedelta(days=7 * payday - 1, hours=3)

    def next_outcome(self) -> str:
        """Return the outcome of the next payment: nearly all complete, a few are returned, a few fail."""
        number = len(self._payments)
        return "returned" if number % 40 == 7 else "failed" if number % 60 == 3 else "completed"

    def add(self, payment: PastPayment) -> None:
        """Add a payment."""
        self._payments.append(payment)

    def write(self, rows: CompanyRows, encrypt: Encrypt) -> None:
        """Add the batches, their transactions and their ledger entries to `rows`."""
        for payday in range(PAYDAYS, 0, -1):
            due = [payment for payment in self._payments if payment.payday == payday]
            for start in range(0, len(due), MAX_BATCH_SIZE):
                self._batch(rows, due[start : start + MAX_BATCH_SIZE], self.paid_at(payday), encrypt)

    def _batch(self, rows: CompanyRows, payments: list[PastPayment], paid_at: datetime, encrypt: Encrypt) -> None:
        batch_id = rows.next_id("huntington_batches")
        failed = sum(payment.status != "completed" for payment in payments)
        status = "completed" if not failed else "completed_with_errors" if failed < len(payments) else "failed"
        queued_at = paid_at - timedelta(minutes=4)
        rows.add(
            "huntington_batches",
            *(batch_id, status, 0, self._rng.choice(self._admins), queued_at - timedelta(hours=1), queued_at),
            *(queued_at + timedelta(seconds=5), paid_at, f"Transfers not completed: {failed}." if failed else None),
        )
        for payment in payments:
            self._transaction(rows, batch_id, payment, paid_at, encrypt)

    def _transaction(
        self, rows: CompanyRows, batch_id: int, payment: PastPayment, paid_at: datetime, encrypt: Encrypt
    ) -> None:
        transaction_id = rows.next_id("huntington_transactions")
        account = payee_account(self._rng)
        was_sent = payment.status != "failed"
        rows.add(
            "huntington_transactions",
            *(transaction_id, batch_id, payment.request_id, payment.method, payment.amount_cents, payment.payee_name),
            *(account.routing_number, encrypt(account.account_number), account.account_number[-4:]),
            *(account.account_type, payment.status, payment.reason, paid_at if was_sent else None, paid_at),
        )
        if was_sent:
            memo = f"Huntington {payment.method}"
            rows.add(
                "ledger_entries",
                *(payment.account_id, -payment.amount_cents, "disbursement", transaction_id, memo, paid_at),
            )
        if payment.status == "returned":
            returned_at = paid_at + timedelta(days=2)
            memo = f"Returned by the bank ({payment.reason})"
            rows.add(
                "ledger_entries",
                *(payment.account_id, payment.amount_cents, "reversal", transaction_id, memo, returned_at),
            )


class CaseMoney:
    """Generates one case's account, requests and ledger entries."""

    def __init__(
        self,
        rows: CompanyRows,
        rng: Random,
        now: datetime,
        past: PastPayments,
        *,
        case_id: int,
        started_at: datetime,
        surrogate: int,
        rep: int | None,
    ) -> None:
        self._rows = rows
        self._rng = rng
        self._now = now
        self._past = past
        self._case_id = case_id
        self._started_at = started_at
        self._surrogate = surrogate
        self._rep = rep
        self._account_id = rows.next_id("accounts")
        self._paid_cents = 0
        self._approved_cents = 0

    def generate(self, status: str, number: int) -> None:
        """Add the requests, the account, its deposits and its fee; `number` selects the states that rotate."""
        rotating = [ROTATION[(number + number // 10) % len(ROTATION)]] if status == "active" else []
        more_paid = ["paid"] * (number % 3) if status == "active" else []
        for state in (*more_paid, *PLANS[status], *rotating):
            self._request(state)
        minimum = 0 if status == "closed" else self._rng.choice(MINIMUMS)
        balance = self._approved_cents
        if status == "active" and number % 9 == 4:
            # Below its minimum, so that there are balance alerts and reminders.
            balance += max(0, round(minimum * 0.4) - balance)
        elif status != "closed":
            balance += minimum + self._rng.randint(0, 2_000_000)
        self._rows.add("accounts", self._account_id, self._case_id, balance, minimum)
        self._deposits(balance)

    def _deposits(self, balance: int) -> None:
        fee = self._rng.choice((25_000, 35_000, 50_000))
        needed = balance + self._paid_cents + fee
        parts = self._rng.choice((1, 2, 3))
        for part in range(parts):
            cents = needed // parts if part else needed - needed // parts * (parts - 1)
            posted_at = self._started_at + timedelta(days=3 + 9 * part)
            self._rows.add("ledger_entries", self._account_id, cents, "deposit", None, "Deposit by wire", posted_at)
        self._rows.add(
            "ledger_entries",
            *(self._account_id, -fee, "fee", None, "Escrow management fee", self._started_at + timedelta(days=4)),
        )

    def _request(self, state: str) -> None:
        request_id = self._rows.next_id("disbursement_requests")
        category, min_cents, max_cents = self._rng.choice(CATEGORIES)
        payee = self._rep if category == "legal fees" and self._rep is not None else self._surrogate
        cents = self._rng.randint(min_cents, max_cents)
        requested_at = self._now - timedelta(days=self._rng.randint(1, 20), minutes=self._rng.randint(0, 1000))
        status, paid_at, approved_at, approved_by = state, None, None, None
        if state == "paid":
            payday = self._rng.randint(1, PAYDAYS)
            outcome = self._past.next_outcome()
            status = self._pay(request_id, payee, cents, payday, outcome)
            paid_at = self._past.paid_at(payday) if status == "paid" else None
            requested_at = self._past.paid_at(payday) - timedelta(days=self._rng.randint(2, 9))
        if status in ("paid", "approved"):
            approved_at = requested_at + timedelta(hours=20)
            approved_by = self._rng.choice(("auto:date", "auto:rule:1", "user:1"))
        if status == "approved":
            self._approved_cents += cents
        if state in ("future", "overdue", "held", "undated"):
            status = "pending"
        authorize_at = {
            "future": self._now + timedelta(hours=self._rng.randint(12, 400)),
            "overdue": self._now - timedelta(minutes=self._rng.randint(5, 1200)),
            "held": self._now - timedelta(minutes=self._rng.randint(5, 1200)),
        }.get(state)
        self._rows.add(
            "disbursement_requests",
            *(request_id, self._case_id, payee, cents, category, f"{category.capitalize()}, {requested_at:%B %Y}"),
            *(status, authorize_at, state == "held", requested_at, approved_at, approved_by, paid_at),
        )

    def _pay(self, request_id: int, payee: int, cents: int, payday: int, outcome: str) -> str:
        """Add a past payment; return the current status of its request."""
        reason = {"returned": self._rng.choice(RETURN_CODES), "failed": "invalid_account"}.get(outcome)
        by_wire = outcome != "returned" and self._rng.random() < 0.3
        name = str(self._rows.tables["users"][payee - 1][2])
        self._past.add(
            PastPayment(
                request_id=request_id,
                account_id=self._account_id,
                payee_name=name,
                method="wire" if by_wire else "ach",
                amount_cents=cents,
                status=outcome,
                reason=reason,
                payday=payday,
            )
        )
        if outcome == "completed":
            self._paid_cents += cents
            return "paid"
        return "approved"
