"""Generates a company: users of every role and cases in every status, each with its account and requests.

The same arguments on the same day give the same company; only the encrypted account numbers differ, because Fernet
encrypts the same text differently every time. Payments and ledgers are generated in `money`.
"""

from datetime import datetime, timedelta
from random import Random

from seedtrust_ops.sandbox.seed.money import CaseMoney, Encrypt, PastPayments
from seedtrust_ops.sandbox.seed.names import email, full_name
from seedtrust_ops.sandbox.seed.rows import CompanyRows

CASES_PER_STAFF_MEMBER = 40
"""How many cases one case manager or escrow specialist is responsible for."""
CASES_PER_REP = 8
CASE_STATUSES = ("active", "closing", "closed", "active", "active", "active", "active", "active", "active", "active")
RULES = (
    # Name, category, maximum in cents, whether it keeps the minimum balance, daily limit in cents.
    ("Monthly allowances up to $350", "monthly allowance", 35_000, True, None),
    ("Maternity clothing up to $800", "maternity clothing", 80_000, True, 500_000),
    ("Travel up to $500", "travel", 50_000, True, 250_000),
    ("Anything up to $100", None, 10_000, True, 100_000),
    ("Medical bills up to $1,500 (switched off)", "medical bills", 150_000, False, None),
)


class _Staff:
    """The user ids of the company's staff and of the intended parents' representatives."""

    def __init__(self, rows: CompanyRows, rng: Random, cases: int, now: datetime) -> None:
        team_size = 2 + cases // CASES_PER_STAFF_MEMBER
        self.managers = [_user(rows, rng, "case_manager", "staff", now) for _ in range(team_size)]
        self.specialists = [_user(rows, rng, "escrow_specialist", "staff", now) for _ in range(team_size)]
        self.admins = [_user(rows, rng, "admin", "staff", now) for _ in range(3)]
        # Former employees: their user rows remain, and they must never get an email.
        for role in ("case_manager", "escrow_specialist", "admin"):
            _user(rows, rng, role, "staff", now, is_active=False)
        self.reps = [_user(rows, rng, "ip_rep", "agencies", now) for _ in range(2 + cases // CASES_PER_REP)]


def make_company(cases: int, seed: int, now: datetime, encrypt: Encrypt) -> CompanyRows:
    """Return the rows of a company with `cases` cases as of `now` (aware); `encrypt` encrypts an account number."""
    rows = CompanyRows()
    rng = Random(f"{seed}:{cases}")
    staff = _Staff(rows, rng, cases, now)
    for position, (name, category, maximum, keeps_minimum, daily_limit) in enumerate(RULES, start=1):
        enabled = "switched off" not in name
        rows.add(
            "approval_rules",
            *(position, name, enabled, position, category, None, None, maximum, keeps_minimum, daily_limit),
        )
    past = PastPayments(rng, now, staff.admins)
    for number in range(cases):
        _case(rows, rng, number, now, staff, past)
    past.write(rows, encrypt)
    return rows


def _user(rows: CompanyRows, rng: Random, role: str, group: str, now: datetime, *, is_active: bool = True) -> int:
    user_id = rows.next_id("users")
    name = full_name(rng)
    joined = now - timedelta(days=rng.randint(120, 1500))
    rows.add("users", user_id, email(name, user_id, group), name, role, is_active, joined)
    return user_id


def _case(rows: CompanyRows, rng: Random, number: int, now: datetime, staff: _Staff, past: PastPayments) -> None:
    case_id = rows.next_id("cases")
    status = CASE_STATUSES[number % len(CASE_STATUSES)]
    started_at = now - timedelta(days=rng.randint(120, 700))
    close_on = None
    if status == "closing":
        close_on = (now + timedelta(days=rng.choice((0, 1, 3, 10, 30)))).date()
    elif status == "closed":
        close_on = (now - timedelta(days=rng.randint(1, 90))).date()
    rows.add(
        "cases",
        *(case_id, f"ST-{started_at:%y}-{case_id:06d}", status, close_on),
        *(rng.choice(staff.specialists), rng.choice(staff.managers), started_at),
    )
    for _ in range(rng.choice((1, 2, 2))):
        rows.add("case_parties", case_id, _user(rows, rng, "intended_parent", "people", now), "intended_parent")
    rep = rng.choice(staff.reps) if rng.random() < 0.4 else None
    if rep is not None:
        rows.add("case_parties", case_id, rep, "ip_rep")
    surrogate = _user(rows, rng, "surrogate", "people", now)
    rows.add("case_parties", case_id, surrogate, "surrogate")
    money = CaseMoney(rows, rng, now, past, case_id=case_id, started_at=started_at, surrogate=surrogate, rep=rep)
    money.generate(status, number)
