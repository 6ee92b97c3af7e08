"""Low balances: one letter a person and day, listing all their cases below the minimum."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from functools import partial

import pytest

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.reminders import balances
from seedtrust_ops.domain.reminders.balances import remind_of_balances
from seedtrust_ops.tables import Account, User
from seedtrust_ops_tests.support.office_factory import Office, OfficeCase

TODAY = date(2026, 3, 9)


def remind(office: Office, today: date = TODAY) -> int:
    return run_in_transaction(office.sessions, partial(remind_of_balances, today=today))


def low(office: Office, shortfall_cents: int = 1, **columns: object) -> OfficeCase:
    """A case whose account is so much below its minimum."""
    return office.case(balance_cents=10_000 - shortfall_cents, minimum_balance_cents=10_000, **columns)


def listed(office: Office, user_id: int) -> list[str]:
    """The case numbers in the one letter to a user, in its order."""
    (letter,) = [one for one in office.letters().values() if one.recipient_id == user_id]
    return [case["case_number"] for case in letter.variables["cases"]]


def test_manager_is_told_of_their_own_cases_and_admins_of_all_worst_first(office: Office) -> None:
    manager, admin = office.user("case_manager"), office.user("admin")
    mine = [low(office, cents, case_manager_id=manager) for cents in (5, 900, 40)]
    other = low(office, 70)
    office.case(balance_cents=10_000, minimum_balance_cents=10_000, case_manager_id=manager)
    assert remind(office) == 3
    assert listed(office, manager) == [mine[1].case_number, mine[2].case_number, mine[0].case_number]
    assert listed(office, other.manager_id) == [other.case_number]
    assert listed(office, admin) == [one.case_number for one in (mine[1], other, mine[2], mine[0])]


def test_letter_names_its_lowest_account_day_and_person_and_has_the_figures(office: Office) -> None:
    manager = office.user("case_manager")
    first, second = low(office, 5, case_manager_id=manager), low(office, 900, case_manager_id=manager)
    remind(office)
    ((key, letter),) = office.letters().items()
    assert key == f"balance-reminder:{min(first.account_id, second.account_id)}:2026-03-09:{manager}"
    assert letter.kind == "balance-reminder"
    assert letter.variables["as_of"] == "2026-03-09"
    assert letter.variables["cases_left_out"] == 0
    assert letter.variables["cases"][0] == {
        "case_number": second.case_number,
        "balance_cents": 9_100,
        "minimum_balance_cents": 10_000,
        "shortfall_cents": 900,
    }


def test_manager_who_is_an_admin_gets_one_letter_about_all(office: Office) -> None:
    both = office.user("admin")
    low(office, case_manager_id=both)
    low(office)
    remind(office)
    assert len(listed(office, both)) == 2


def test_inactive_people_get_nothing(office: Office) -> None:
    case = low(office)
    office.change(User, case.manager_id, is_active=False)
    office.user("admin", is_active=False)
    assert remind(office) == 0


@pytest.mark.parametrize("status", ["closing", "closed"])
def test_only_active_cases_must_hold_their_minimum(office: Office, status: str) -> None:
    low(office, status=status)
    assert remind(office) == 0


def test_nobody_is_told_twice_on_a_day_though_the_lowest_account_has_recovered(office: Office) -> None:
    manager = office.user("case_manager")
    first = low(office, case_manager_id=manager)
    low(office, case_manager_id=manager)
    assert remind(office) == 1
    office.change(Account, first.account_id, balance_cents=10_000)
    assert remind(office) == 0
    assert remind(office, TODAY + timedelta(days=3)) == 1


def test_runs_at_once_write_one_letter_a_person(office: Office) -> None:
    office.user("admin")
    for _ in range(6):
        low(office)
    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(lambda _: remind(office), range(4)))
    assert sum(written) == len(office.letters()) == 7


def test_long_list_is_cut_and_says_how_many_are_left_out(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balances, "CASES_LISTED", 2)
    admin = office.user("admin")
    cases = [low(office, cents, case_manager_id=None) for cents in (3, 2, 1)]
    remind(office)
    assert listed(office, admin) == [cases[0].case_number, cases[1].case_number]
    (letter,) = office.letters().values()
    assert letter.variables["cases_left_out"] == 1
