"""Low-balance reminders: one email per person and day, listing all their cases below the minimum."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from functools import partial

import pytest

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.reminders import balances
from seedtrust_ops.domain.reminders.balances import enqueue_balance_reminders
from seedtrust_ops.tables import Account, User
from seedtrust_ops_tests.support.office_factory import Office, OfficeCase

TODAY = date(2026, 3, 9)


def remind(office: Office, today: date = TODAY) -> int:
    return run_in_transaction(office.sessions, partial(enqueue_balance_reminders, today=today))


def low(office: Office, shortfall_cents: int = 1, **columns: object) -> OfficeCase:
    """Create a case whose account is `shortfall_cents` below its minimum."""
    return office.case(balance_cents=10_000 - shortfall_cents, minimum_balance_cents=10_000, **columns)


def listed(office: Office, user_id: int) -> list[str]:
    """Return the case numbers in the one email to a user, in order."""
    (email,) = [one for one in office.emails().values() if one.recipient_id == user_id]
    return [case["case_number"] for case in email.variables["cases"]]


def test_manager_gets_own_cases_and_admin_gets_all_worst_first(office: Office) -> None:
    manager, admin = office.user("case_manager"), office.user("admin")
    mine = [low(office, cents, case_manager_id=manager) for cents in (5, 900, 40)]
    other = low(office, 70)
    office.case(balance_cents=10_000, minimum_balance_cents=10_000, case_manager_id=manager)
    assert remind(office) == 3
    assert listed(office, manager) == [mine[1].case_number, mine[2].case_number, mine[0].case_number]
    assert listed(office, other.manager_id) == [other.case_number]
    assert listed(office, admin) == [one.case_number for one in (mine[1], other, mine[2], mine[0])]


def test_email_has_its_dedupe_key_and_the_figures(office: Office) -> None:
    manager = office.user("case_manager")
    first, second = low(office, 5, case_manager_id=manager), low(office, 900, case_manager_id=manager)
    remind(office)
    ((key, email),) = office.emails().items()
    assert key == f"balance-reminder:{min(first.account_id, second.account_id)}:2026-03-09:{manager}"
    assert email.kind == "balance-reminder"
    assert email.variables["as_of"] == "2026-03-09"
    assert email.variables["cases_left_out"] == 0
    assert email.variables["cases"][0] == {
        "case_number": second.case_number,
        "balance_cents": 9_100,
        "minimum_balance_cents": 10_000,
        "shortfall_cents": 900,
    }


def test_manager_who_is_an_admin_gets_one_email_about_all_cases(office: Office) -> None:
    both = office.user("admin")
    low(office, case_manager_id=both)
    low(office)
    remind(office)
    assert len(listed(office, both)) == 2


def test_inactive_recipients_get_no_email(office: Office) -> None:
    case = low(office)
    office.change(User, case.manager_id, is_active=False)
    office.user("admin", is_active=False)
    assert remind(office) == 0


@pytest.mark.parametrize("status", ["closing", "closed"])
def test_only_active_cases_need_the_minimum_balance(office: Office, status: str) -> None:
    low(office, status=status)
    assert remind(office) == 0


def test_second_run_sends_nothing_though_the_lowest_account_recovered(office: Office) -> None:
    manager = office.user("case_manager")
    first = low(office, case_manager_id=manager)
    low(office, case_manager_id=manager)
    assert remind(office) == 1
    office.change(Account, first.account_id, balance_cents=10_000)
    assert remind(office) == 0
    assert remind(office, TODAY + timedelta(days=3)) == 1


def test_concurrent_runs_queue_one_email_per_person(office: Office) -> None:
    office.user("admin")
    for _ in range(6):
        low(office)
    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(lambda _: remind(office), range(4)))
    assert sum(written) == len(office.emails()) == 7


def test_long_list_is_cut_and_counts_the_rest(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balances, "MAX_CASES_LISTED", 2)
    admin = office.user("admin")
    cases = [low(office, cents, case_manager_id=None) for cents in (3, 2, 1)]
    remind(office)
    assert listed(office, admin) == [cases[0].case_number, cases[1].case_number]
    (email,) = office.emails().values()
    assert email.variables["cases_left_out"] == 1
