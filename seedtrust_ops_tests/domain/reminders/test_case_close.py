"""Case-close reminders: sent to the escrow specialist on the day or once afterwards, never for a closed case."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from functools import partial

import pytest

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.reminders.case_close import enqueue_case_close_reminders
from seedtrust_ops.tables import Case, User
from seedtrust_ops_tests.support.office_factory import Office

TODAY = date(2026, 3, 9)


def remind(office: Office, today: date = TODAY) -> list[str]:
    return run_in_transaction(office.sessions, partial(enqueue_case_close_reminders, today=today))


def test_specialist_gets_an_email_on_the_close_date(office: Office) -> None:
    case = office.case(close_on=TODAY, balance_cents=128_450)
    office.request(case)
    office.request(case, status="approved")
    office.request(case, status="paid")
    assert remind(office) == [case.case_number]
    ((key, email),) = office.emails().items()
    assert key == f"case-close:{case.case_id}:2026-03-09:{case.specialist_id}"
    assert (email.kind, email.recipient_id, email.status) == ("case-close", case.specialist_id, "queued")
    assert email.variables == {
        "case_number": case.case_number,
        "close_on": "2026-03-09",
        "late": False,
        "balance_cents": 128_450,
        "open_requests": 2,
    }


def test_missed_close_date_gets_one_late_email(office: Office) -> None:
    case = office.case(close_on=TODAY - timedelta(days=4))
    assert remind(office) == [case.case_number]
    assert [email.variables["late"] for email in office.emails().values()] == [True]
    for day in range(1, 5):
        assert remind(office, TODAY + timedelta(days=day)) == []
    assert len(office.emails()) == 1


def test_reminded_case_gets_no_late_email_even_for_a_new_specialist(office: Office) -> None:
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
    ids=["closes tomorrow", "no close date", "closed today", "closed late", "no specialist"],
)
def test_case_not_due_to_close_gets_no_email(office: Office, columns: dict[str, object]) -> None:
    office.case(**columns)
    assert remind(office) == []


def test_closing_case_without_an_account_gets_an_email(office: Office) -> None:
    specialist = office.user("escrow_specialist")
    with office.sessions.begin() as session:
        session.add(Case(case_number="ST-BARE", status="closing", close_on=TODAY, escrow_specialist_id=specialist))
    assert remind(office) == ["ST-BARE"]


def test_inactive_specialist_gets_no_email_and_the_successor_a_late_one(office: Office) -> None:
    case = office.case(close_on=TODAY)
    office.change(User, case.specialist_id, is_active=False)
    assert remind(office) == []
    successor = office.user("escrow_specialist")
    office.change(Case, case.case_id, escrow_specialist_id=successor)
    remind(office, TODAY + timedelta(days=2))
    assert list(office.emails()) == [f"case-close:{case.case_id}:2026-03-09:{successor}"]


def test_new_close_date_gets_another_email(office: Office) -> None:
    case = office.case(close_on=TODAY)
    remind(office)
    office.change(Case, case.case_id, close_on=TODAY + timedelta(days=30))
    assert remind(office, TODAY + timedelta(days=29)) == []
    assert remind(office, TODAY + timedelta(days=30)) == [case.case_number]


def test_concurrent_runs_queue_each_email_once(office: Office) -> None:
    for _ in range(10):
        office.case(close_on=TODAY)
    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(lambda _: remind(office), range(4)))
    assert sum(len(cases) for cases in written) == len(office.emails()) == 10
