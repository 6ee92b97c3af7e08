"""Case-close reminders: sent to the escrow specialist on the day or once afterwards, never for a closed case."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.outbox import enqueue_emails
from seedtrust_ops.domain.reminders.case_close import find_case_close_reminders
from seedtrust_ops.tables import Alert, Case, User
from seedtrust_ops_tests.support.case_factory import CaseFactory

TODAY = date(2026, 3, 9)


def remind(factory: CaseFactory, today: date = TODAY) -> list[str]:
    """Enqueue the day's emails as the job does; return the case numbers of those that are new."""

    def enqueue(session: Session) -> list[str]:
        return [
            email.variables["case_number"]
            for email in find_case_close_reminders(session, today)
            if enqueue_emails(session, [email])
        ]

    return run_in_transaction(factory.sessions, enqueue)


def open_alerts(factory: CaseFactory) -> list[str]:
    with factory.sessions() as session:
        return list(session.scalars(select(Alert.subject).where(Alert.resolved_at.is_(None))))


def test_specialist_gets_an_email_on_the_close_date(factory: CaseFactory) -> None:
    case = factory.case(close_on=TODAY, balance_cents=128_450)
    factory.request(case)
    factory.request(case, status="approved")
    factory.request(case, status="paid")
    assert remind(factory) == [case.case_number]
    ((key, email),) = factory.emails().items()
    assert key == f"case-close:{case.case_id}:2026-03-09:{case.specialist_id}"
    assert (email.kind, email.recipient_id, email.status) == ("case-close", case.specialist_id, "queued")
    assert email.variables == {
        "case_number": case.case_number,
        "close_on": "2026-03-09",
        "late": False,
        "balance_cents": 128_450,
        "open_requests": 2,
    }


def test_missed_close_date_gets_one_late_email(factory: CaseFactory) -> None:
    case = factory.case(close_on=TODAY - timedelta(days=4))
    assert remind(factory) == [case.case_number]
    assert [email.variables["late"] for email in factory.emails().values()] == [True]
    for day in range(1, 5):
        assert remind(factory, TODAY + timedelta(days=day)) == []
    assert len(factory.emails()) == 1


def test_reminded_case_gets_no_late_email_even_for_a_new_specialist(factory: CaseFactory) -> None:
    case = factory.case(close_on=TODAY)
    remind(factory)
    assert remind(factory) == []
    factory.change(Case, case.case_id, escrow_specialist_id=factory.user("escrow_specialist"))
    assert remind(factory, TODAY + timedelta(days=1)) == []


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
def test_case_not_due_to_close_gets_no_email(factory: CaseFactory, columns: dict[str, object]) -> None:
    factory.case(**columns)
    assert remind(factory) == []


def test_closing_case_without_an_account_gets_an_email(factory: CaseFactory) -> None:
    specialist = factory.user("escrow_specialist")
    with factory.sessions.begin() as session:
        session.add(Case(case_number="ST-BARE", status="closing", close_on=TODAY, escrow_specialist_id=specialist))
    assert remind(factory) == ["ST-BARE"]


def test_inactive_specialist_gets_no_email_and_the_successor_a_late_one(factory: CaseFactory) -> None:
    case = factory.case(close_on=TODAY)
    factory.change(User, case.specialist_id, is_active=False)
    assert remind(factory) == []
    assert open_alerts(factory) == ["case-close emails without a recipient"]
    successor = factory.user("escrow_specialist")
    factory.change(Case, case.case_id, escrow_specialist_id=successor)
    remind(factory, TODAY + timedelta(days=2))
    assert list(factory.emails()) == [f"case-close:{case.case_id}:2026-03-09:{successor}"]
    assert open_alerts(factory) == []


def test_new_close_date_gets_another_email(factory: CaseFactory) -> None:
    case = factory.case(close_on=TODAY)
    remind(factory)
    factory.change(Case, case.case_id, close_on=TODAY + timedelta(days=30))
    assert remind(factory, TODAY + timedelta(days=29)) == []
    assert remind(factory, TODAY + timedelta(days=30)) == [case.case_number]


def test_concurrent_runs_queue_each_email_once(factory: CaseFactory) -> None:
    for _ in range(10):
        factory.case(close_on=TODAY)
    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(lambda _: remind(factory), range(4)))
    assert sum(len(cases) for cases in written) == len(factory.emails()) == 10
