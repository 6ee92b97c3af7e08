"""Closings: the escrow specialist is told on the day, or once afterwards, and of a closed case never."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from functools import partial

import pytest

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.reminders.case_close import remind_of_closings
from seedtrust_ops.tables import Case, User
from seedtrust_ops_tests.support.office_factory import Office

TODAY = date(2026, 3, 9)


def remind(office: Office, today: date = TODAY) -> list[str]:
    return run_in_transaction(office.sessions, partial(remind_of_closings, today=today))


def test_specialist_is_told_on_the_close_date(office: Office) -> None:
    case = office.case(close_on=TODAY, balance_cents=128_450)
    office.request(case)
    office.request(case, status="approved")
    office.request(case, status="paid")
    assert remind(office) == [case.case_number]
    ((key, letter),) = office.letters().items()
    assert key == f"case-close:{case.case_id}:2026-03-09:{case.specialist_id}"
    assert (letter.kind, letter.recipient_id, letter.status) == ("case-close", case.specialist_id, "queued")
    assert letter.variables == {
        "case_number": case.case_number,
        "close_on": "2026-03-09",
        "late": False,
        "balance_cents": 128_450,
        "open_requests": 2,
    }


def test_day_that_was_missed_is_told_of_late_and_once(office: Office) -> None:
    case = office.case(close_on=TODAY - timedelta(days=4))
    assert remind(office) == [case.case_number]
    assert [letter.variables["late"] for letter in office.letters().values()] == [True]
    for day in range(1, 5):
        assert remind(office, TODAY + timedelta(days=day)) == []
    assert len(office.letters()) == 1


def test_who_was_told_on_the_day_is_not_told_late_nor_is_their_successor(office: Office) -> None:
    case = office.case(close_on=TODAY)
    remind(office)
    assert remind(office) == []
    office.change(Case, case.case_id, escrow_specialist_id=office.user("escrow_specialist"))
    assert remind(office, TODAY + timedelta(days=1)) == []


@pytest.mark.parametrize(
    "columns",
    [
        {"close_on": TODAY + timedelta(days=1)},
        {"close_on": None},
        {"close_on": TODAY, "status": "closed"},
        {"close_on": TODAY - timedelta(days=1), "status": "closed"},
        {"close_on": TODAY, "escrow_specialist_id": None},
    ],
)
def test_nobody_is_told_where_nothing_is_to_be_closed(office: Office, columns: dict[str, object]) -> None:
    office.case(**columns)
    assert remind(office) == []


def test_closing_case_without_an_account_is_told_of(office: Office) -> None:
    specialist = office.user("escrow_specialist")
    with office.sessions.begin() as session:
        session.add(Case(case_number="ST-BARE", status="closing", close_on=TODAY, escrow_specialist_id=specialist))
    assert remind(office) == ["ST-BARE"]


def test_inactive_specialist_gets_nothing_and_the_next_one_is_told_late(office: Office) -> None:
    case = office.case(close_on=TODAY)
    office.change(User, case.specialist_id, is_active=False)
    assert remind(office) == []
    successor = office.user("escrow_specialist")
    office.change(Case, case.case_id, escrow_specialist_id=successor)
    remind(office, TODAY + timedelta(days=2))
    assert list(office.letters()) == [f"case-close:{case.case_id}:2026-03-09:{successor}"]


def test_new_close_date_is_told_of_again(office: Office) -> None:
    case = office.case(close_on=TODAY)
    remind(office)
    office.change(Case, case.case_id, close_on=TODAY + timedelta(days=30))
    assert remind(office, TODAY + timedelta(days=29)) == []
    assert remind(office, TODAY + timedelta(days=30)) == [case.case_number]


def test_runs_at_once_write_each_letter_once(office: Office) -> None:
    for _ in range(10):
        office.case(close_on=TODAY)
    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(lambda _: remind(office), range(4)))
    assert sum(len(cases) for cases in written) == len(office.letters()) == 10
