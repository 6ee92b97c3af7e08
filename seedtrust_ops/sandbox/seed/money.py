"""Makes up a case's money: requests in every state, the payments of the past, and a ledger that adds up to the cent.

Deposits are made up last, so that each account holds what was approved; who is party to a case is in `company`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from seedtrust_ops.sandbox.seed.names import payee_account
from seedtrust_ops.sandbox.seed.rows import CompanyRows

Encrypt = Callable[[str], str]

# Category and its least and most in cents.
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
"""How many weekly paydays there were; all within the 90 days that the first reading of the bank's feed covers."""
MOST_IN_A_BATCH = 200
RETURN_CODES = ("R01", "R02", "R03")
ROTATION = ("overdue", "held", "denied", "cancelled", "undated")
PLANS = {
    "active": ("paid", "paid", "paid", "approved", "approved", "future"),
    "closing": ("paid", "paid", "paid", "paid", "approved", "future"),
    "closed": ("paid", "paid", "paid", "paid", "paid", "denied", "cancelled"),
}


@dataclass(frozen=True)
class PastPayment:
    """A transaction of the past; `status` is completed, returned or failed, `payday` counts weeks back."""

    request_id: int
    account_id: int
    payee_name: str
    method: str
    amount_cents: int
    status: str
    reason: str | None
    payday: int


class PastPayments:
    """Collects the payments of all cases and puts them into the batches of their paydays."""

    def __init__(self, rng: Random, now: datetime, admins: list[int]) -> None:
        self._rng = rng
        self._now = now
        self._admins = admins
        self._payments: list[PastPayment] = []

    def moment(self, payday: int) -> datetime:
        """Return when the payments of a payday went through."""
        return self._now - timedelta(days=7 * payday - 1, hours=3)

    def fate_of_next(self) -> str:
        """Return what becomes of the next payment: nearly all complete, a few come back, a few are refused."""
        number = len(self._payments)
        return "returned" if number % 40 == 7 else "failed" if number % 60 == 3 else "completed"

    def add(self, payment: PastPayment) -> None:
        """Add a payment."""
        self._payments.append(payment)

    def write(self, rows: CompanyRows, encrypt: Encrypt) -> None:
        """Add the batches, their transactions and their ledger entries to `rows`."""
        for payday in range(PAYDAYS, 0, -1):
            due = [payment for payment in self._payments if payment.payday == payday]
            for start in range(0, len(due), MOST_IN_A_BATCH):
                self._batch(rows, due[start : start + MOST_IN_A_BATCH], self.moment(payday), encrypt)

    def _batch(self, rows: CompanyRows, payments: list[PastPayment], moment: datetime, encrypt: Encrypt) -> None:
        batch_id = rows.next_id("huntington_batches")
        bad = sum(payment.status != "completed" for payment in payments)
        status = "completed" if not bad else "completed_with_errors" if bad < len(payments) else "failed"
        queued = moment - timedelta(minutes=4)
        rows.add(
            "huntington_batches",
            *(batch_id, status, 0, self._rng.choice(self._admins), queued - timedelta(hours=1), queued),
            *(queued + timedelta(seconds=5), moment, f"{bad} of its transfers did not go through." if bad else None),
        )
        for payment in payments:
            self._transaction(rows, batch_id, payment, moment, encrypt)

    def _transaction(
        self, rows: CompanyRows, batch_id: int, payment: PastPayment, moment: datetime, encrypt: Encrypt
    ) -> None:
        transaction_id = rows.next_id("huntington_transactions")
        account = payee_account(self._rng)
        went_out = payment.status != "failed"
        rows.add(
            "huntington_transactions",
            *(transaction_id, batch_id, payment.request_id, payment.method, payment.amount_cents, payment.payee_name),
            *(account.routing_number, encrypt(account.account_number), account.account_number[-4:]),
            *(account.account_type, payment.status, payment.reason, moment if went_out else None, moment),
        )
        if went_out:
            memo = f"Huntington {payment.method}"
            rows.add(
                "ledger_entries",
                *(payment.account_id, -payment.amount_cents, "disbursement", transaction_id, memo, moment),
            )
        if payment.status == "returned":
            back = moment + timedelta(days=2)
            memo = f"Returned by the bank ({payment.reason})"
            rows.add("ledger_entries", payment.account_id, payment.amount_cents, "reversal", transaction_id, memo, back)


class MoneyOfACase:
    """Makes up one case's account and requests."""

    def __init__(
        self,
        rows: CompanyRows,
        rng: Random,
        now: datetime,
        past: PastPayments,
        *,
        case_id: int,
        began: datetime,
        surrogate: int,
        rep: int | None,
    ) -> None:
        self._rows = rows
        self._rng = rng
        self._now = now
        self._past = past
        self._case_id = case_id
        self._began = began
        self._surrogate = surrogate
        self._rep = rep
        self._account_id = rows.next_id("accounts")
        self._paid_cents = 0
        self._approved_cents = 0

    def make_up(self, status: str, number: int) -> None:
        """Add the requests, the account and its deposits and fees; `number` decides which states take turns."""
        turn = [ROTATION[(number + number // 10) % len(ROTATION)]] if status == "active" else []
        more_paid = ["paid"] * (number % 3) if status == "active" else []
        for state in (*more_paid, *PLANS[status], *turn):
            self._request(state)
        minimum = 0 if status == "closed" else self._rng.choice(MINIMUMS)
        balance = self._approved_cents
        if status == "active" and number % 9 == 4:
            # Below its minimum: what balance alerts and reminders are about.
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
            posted = self._began + timedelta(days=3 + 9 * part)
            self._rows.add("ledger_entries", self._account_id, cents, "deposit", None, "Deposit by wire", posted)
        self._rows.add(
            "ledger_entries",
            *(self._account_id, -fee, "fee", None, "Escrow management fee", self._began + timedelta(days=4)),
        )

    def _request(self, state: str) -> None:
        request_id = self._rows.next_id("disbursement_requests")
        category, least, most = self._rng.choice(CATEGORIES)
        payee = self._rep if category == "legal fees" and self._rep is not None else self._surrogate
        cents = self._rng.randint(least, most)
        requested = self._now - timedelta(days=self._rng.randint(1, 20), minutes=self._rng.randint(0, 1000))
        status, paid_at, approved_at, approved_by = state, None, None, None
        if state == "paid":
            payday = self._rng.randint(1, PAYDAYS)
            fate = self._past.fate_of_next()
            status = self._pay(request_id, payee, cents, payday, fate)
            paid_at = self._past.moment(payday) if status == "paid" else None
            requested = self._past.moment(payday) - timedelta(days=self._rng.randint(2, 9))
        if status in ("paid", "approved"):
            approved_at = requested + timedelta(hours=20)
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
            *(request_id, self._case_id, payee, cents, category, f"{category.capitalize()}, {requested:%B %Y}"),
            *(status, authorize_at, state == "held", requested, approved_at, approved_by, paid_at),
        )

    def _pay(self, request_id: int, payee: int, cents: int, payday: int, fate: str) -> str:
        """Add a payment of the past; return the status that its request has now."""
        reason = {"returned": self._rng.choice(RETURN_CODES), "failed": "invalid_account"}.get(fate)
        by_wire = fate != "returned" and self._rng.random() < 0.3
        name = str(self._rows.tables["users"][payee - 1][2])
        self._past.add(
            PastPayment(
                request_id=request_id,
                account_id=self._account_id,
                payee_name=name,
                method="wire" if by_wire else "ach",
                amount_cents=cents,
                status=fate,
                reason=reason,
                payday=payday,
            )
        )
        if fate == "completed":
            self._paid_cents += cents
            return "paid"
        return "approved"
