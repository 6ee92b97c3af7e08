"""Low-balance reminders: one email per person and day, listing all their cases below the minimum."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

import pytest
from sqlalchemy import select

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.outbox import enqueue_emails
from seedtrust_ops.domain.reminders import balances
from seedtrust_ops.domain.reminders.balances import find_balance_reminders
from seedtrust_ops.tables import Account, Alert, User
from seedtrust_ops_tests.support.case_factory import CaseFactory, CaseWithParties

TODAY = date(2026, 3, 9)


def remind(factory: CaseFactory, today: date = TODAY) -> int:
    """Enqueue the day's emails as the job does; return how many are new."""
    return run_in_transaction(
        factory.sessions, lambda session: enqueue_emails(session, find_balance_reminders(session, today))
    )


def open_alerts(factory: CaseFactory) -> list[str]:
    with factory.sessions() as session:
        return list(session.scalars(select(Alert.subject).where(Alert.resolved_at.is_(None))))


def low(factory: CaseFactory, shortfall_cents: int = 1, **columns: object) -> CaseWithParties:
    """Create a case whose account is `shortfall_cents` below its minimum."""
    return factory.case(balance_cents=10_000 - shortfall_cents, minimum_balance_cents=10_000, **columns)


def listed(factory: CaseFactory, user_id: int) -> list[str]:
    """Return the case numbers in the one email to a user, in order."""
    (email,) = [queued_email for queued_email in factory.emails().values() if queued_email.recipient_id == user_id]
    return [case["case_number"] for case in email.variables["rows"]]


def test_manager_gets_own_cases_and_admin_gets_all_worst_first(factory: CaseFactory) -> None:
    manager, admin = factory.user("case_manager"), factory.user("admin")
    mine = [low(factory, cents, case_manager_id=manager) for cents in (5, 900, 40)]
    other = low(factory, 70)
    factory.case(balance_cents=10_000, minimum_balance_cents=10_000, case_manager_id=manager)
    assert remind(factory) == 3
    assert listed(factory, manager) == [mine[1].case_number, mine[2].case_number, mine[0].case_number]
    assert listed(factory, other.manager_id) == [other.case_number]
    assert listed(factory, admin) == [case.case_number for case in (mine[1], other, mine[2], mine[0])]


def test_low_account_of_which_nobody_is_reminded_opens_an_alert(factory: CaseFactory) -> None:
    manager = factory.user("case_manager")
    low(factory, case_manager_id=manager)
    factory.change(User, manager, is_active=False)
    assert remind(factory) == 0
    assert open_alerts(factory) == ["balance-reminder emails without a recipient"]
    factory.user("admin")
    assert remind(factory) == 1
    assert open_alerts(factory) == []


def test_email_has_its_dedupe_key_and_the_figures(factory: CaseFactory) -> None:
    manager = factory.user("case_manager")
    first, second = low(factory, 5, case_manager_id=manager), low(factory, 900, case_manager_id=manager)
    remind(factory)
    ((key, email),) = factory.emails().items()
    assert key == f"balance-reminder:{min(first.account_id, second.account_id)}:2026-03-09:{manager}"
    assert email.kind == "balance-reminder"
    assert email.variables["as_of"] == "2026-03-09"
    assert email.variables["rows_left_out"] == 0
    assert email.variables["rows"][0] == {
        "case_number": second.case_number,
        "balance_cents": 9_100,
        "minimum_balance_cents": 10_000,
        "shortfall_cents": 900,
    }


def test_manager_who_is_an_admin_gets_one_email_about_all_cases(factory: CaseFactory) -> None:
    both = factory.user("admin")
    low(factory, case_manager_id=both)
    low(factory)
    remind(factory)
    assert len(listed(factory, both)) == 2


def test_inactive_recipients_get_no_email(factory: CaseFactory) -> None:
    case = low(factory)
    factory.change(User, case.manager_id, is_active=False)
    factory.user("admin", is_active=False)
    assert remind(factory) == 0


@pytest.mark.parametrize("status", ["closing", "closed"])
def test_only_active_cases_need_the_minimum_balance(factory: CaseFactory, status: str) -> None:
    low(factory, status=status)
    assert remind(factory) == 0


def test_second_run_sends_nothing_though_the_lowest_account_recovered(factory: CaseFactory) -> None:
    manager = factory.user("case_manager")
    first = low(factory, case_manager_id=manager)
    low(factory, case_manager_id=manager)
    assert remind(factory) == 1
    factory.change(Account, first.account_id, balance_cents=10_000)
    assert remind(factory) == 0
    assert remind(factory, TODAY + timedelta(days=3)) == 1


def test_concurrent_runs_queue_one_email_per_person(factory: CaseFactory) -> None:
    factory.user("admin")
    for _ in range(6):
        low(factory)
    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(lambda _: remind(factory), range(4)))
    assert sum(written) == len(factory.emails()) == 7


def test_long_list_is_cut_and_counts_the_rest(factory: CaseFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balances, "MAX_CASES_LISTED", 2)
    admin = factory.user("admin")
    cases = [low(factory, cents, case_manager_id=None) for cents in (3, 2, 1)]
    remind(factory)
    assert listed(factory, admin) == [cases[0].case_number, cases[1].case_number]
    (email,) = factory.emails().values()
    assert email.variables["rows_left_out"] == 1
