"""Both systems live at once, by mistake: every job runs beside a stand-in of the old one, and no harm is done.

What no side of ours can prevent (the old system's own letters, for one) is in docs/cutover.md.
"""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.definitions import defs
from seedtrust_ops.jobs.account_balance_check import week_ended_by
from seedtrust_ops.orchestration.schedules import office_today
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.sandbox.external_services.server_group import OutsideWorld
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.tables import (
    BalanceAlert,
    DisbursementRequest,
    HuntingtonTransaction,
    LedgerEntry,
    Notification,
    ReportRequest,
    User,
    ViewingDisbursementRequest,
)
from seedtrust_ops_tests.domain.shadow_mode.legacy_systems import TIMEOUT, Legacy
from seedtrust_ops_tests.jobs.job_runner import process, run
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.job_environment import Change
from seedtrust_ops_tests.support.office_factory import Office

pytestmark = pytest.mark.usefixtures("production")
ROWS = 30
AT = "2026-11-24T11:00:00+00:00"


@pytest.fixture
def legacy(sessions: sessionmaker[Session], bank: BankProcess) -> Legacy:
    return Legacy(sessions, bank.control)


@pytest.fixture
def office(sessions: sessionmaker[Session]) -> Office:
    return Office(sessions)


def both(theirs: Callable[[], object], ours: Callable[[], object]) -> None:
    """Do both at once, from the same moment on."""
    start = threading.Barrier(2)

    def work() -> None:
        start.wait(30)
        theirs()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        start.wait(30)
        ours()
        done.result()


def succeed(name: str) -> None:
    ran = run(name)
    assert ran.success, ran.sentences


def letters_of(sessions: sessionmaker[Session], kind: str) -> list[str]:
    with sessions() as session:
        return list(session.scalars(select(Notification.dedupe_key).where(Notification.kind == kind)))


@pytest.mark.parametrize("by", ["auto:date", "auto:rule"])
def test_no_request_is_approved_twice_or_told_of_twice_by_us(by: str, office: Office, legacy: Legacy) -> None:
    case = office.case()
    if by == "auto:rule":
        office.rule()
        requests = [office.request(case, auto_authorize_at=None) for _ in range(ROWS)]
        both(legacy.approve_by_rules, lambda: succeed("rule_based_approval"))
    else:
        requests = [office.request(case) for _ in range(ROWS)]
        both(legacy.approve_due, lambda: succeed("dr_auto_approval"))
    assert sorted(office.approvals()) == requests
    ours = Counter(key.split(":")[1] for key in office.letters())
    theirs = {about for _, _, about in legacy.letters}
    # A parent, a representative and a manager each; and whoever approved a request told of it, nobody else.
    assert set(ours.values()) <= {3}
    assert ours.keys() | theirs == {str(one) for one in requests}
    assert not ours.keys() & theirs


def test_no_report_is_built_twice(office: Office, legacy: Legacy, sessions: sessionmaker[Session]) -> None:
    admin = office.user("admin")
    office.case()
    with sessions.begin() as session:
        session.add_all([ReportRequest(user_id=admin, kind="account_balances", format="csv") for _ in range(ROWS)])
    both(legacy.make_reports, lambda: succeed("report_generation"))
    with sessions() as session:
        assert set(session.scalars(select(ReportRequest.status))) == {3}
        ids = set(session.scalars(select(ReportRequest.id)))
    ours = [int(key.split(":")[1]) for key in letters_of(sessions, "report")]
    assert sorted([*ours, *legacy.reports_built]) == sorted(ids)


def test_no_transaction_is_sent_twice(company: Company, legacy: Legacy, bank: BankProcess, change: Change) -> None:
    # As in production: so long a batch of the old worker's must have been quiet before it is taken over.
    change(HUNTINGTON_UNKNOWN_GRACE_SECONDS="600")
    batches = [company.batch([1_000 + one for one in range(8)]) for _ in range(4)]

    def ours() -> None:
        for batch_id in reversed(batches):
            ran = process(batch_id)
            # Where the old worker has it, ours says so and leaves it alone.
            assert ran.success or "in the hands of a worker that holds no lease" in ran.sentences[-1]

    both(lambda: [legacy.send_batch(batch_id) for batch_id in batches], ours)
    transactions = [one for batch_id in batches for one in company.transactions(batch_id)]
    assert {one.status for one in transactions} == {"completed"}
    sent = Counter(one["reference"] for one in bank.control.ledger()["transfers"])
    assert {one.id: sent[str(one.id)] for one in transactions} == {one.id: 1 for one in transactions}
    assert {len(company.ledger(one.id)) for one in transactions} == {1}
    assert company.unbalanced_accounts() == []


def test_healing_beside_theirs_books_each_transfer_once(company: Company, legacy: Legacy, bank: BankProcess) -> None:
    batch_id = company.batch([2_000 + one for one in range(ROWS)], status="processing")
    transactions = company.transactions(batch_id)
    for place, one in enumerate(transactions):
        bank.control.plant_transfer(str(one.id), one.amount_cents, method=one.method, status="completed")
        written_off = {"status": "failed", "failure_reason": TIMEOUT} if place % 5 == 0 else {"status": "submitted"}
        legacy.write_down(HuntingtonTransaction, one.id, **written_off)
    both(legacy.heal, lambda: succeed("auto_heal_huntington_batches"))
    assert set(company.statuses(batch_id)) == {"completed"}
    assert {len(company.ledger(one.id)) for one in transactions} == {1}
    assert company.unbalanced_accounts() == []


def test_reminders_are_written_once_by_us_beside_theirs(
    office: Office, legacy: Legacy, sessions: sessionmaker[Session], mailbox: MailboxProcess
) -> None:
    cases = [office.case(close_on=office_today(), balance_cents=1, minimum_balance_cents=10) for _ in range(5)]
    admin = office.user("admin")
    both(lambda: legacy.remind_of_closings(office_today()), lambda: succeed("case_close_reminders"))
    both(legacy.remind_of_balances, lambda: succeed("account_balance_reminders"))
    for name in ("case_close_reminders", "account_balance_reminders"):
        succeed(name)
    assert len(letters_of(sessions, "case-close")) == len(cases)
    assert len(letters_of(sessions, "balance-reminder")) == len(cases) + 1
    with sessions() as session:
        address = session.get_one(User, admin).email
    assert len(mailbox.control.letters(address)) == 1


def test_presence_is_cleared_by_both_and_nobody_is_hurt(
    office: Office, legacy: Legacy, sessions: sessionmaker[Session]
) -> None:
    request = office.request(office.case())
    people = [office.user("admin", is_on_site=True) for _ in range(ROWS)]
    with sessions.begin() as session:
        session.add_all([ViewingDisbursementRequest(user_id=one, disbursement_request_id=request) for one in people])
    both(legacy.clear_presence, lambda: succeed("off_site_tracking"))
    with sessions() as session:
        assert not session.scalar(select(func.count()).select_from(User).where(User.is_on_site))
        assert not session.scalar(select(func.count()).select_from(ViewingDisbursementRequest))
        assert session.scalar(select(func.count()).select_from(DisbursementRequest)) == 1


def test_balances_change_under_our_check_and_its_alerts_are_still_one_an_account(
    office: Office, legacy: Legacy, sessions: sessionmaker[Session], company: Company, outside: OutsideWorld
) -> None:
    low = [office.case(balance_cents=1, minimum_balance_cents=10).account_id for _ in range(ROWS)]
    with sessions.begin() as session:
        session.add_all([LedgerEntry(account_id=one, amount_cents=1, kind="deposit") for one in low])
    batch_id = company.batch([3_000 + one for one in range(8)])
    week = week_ended_by(office_today())

    def check() -> None:
        assert defs.resolve_job_def("account_balance_check").execute_in_process(partition_key=week).success

    both(lambda: legacy.send_batch(batch_id), check)
    check()
    assert company.unbalanced_accounts() == []
    with sessions() as session:
        assert sorted(session.scalars(select(BalanceAlert.account_id))) == sorted(low)
    assert outside.storage.keys("balances/") == [f"balances/{week}/account_balances.parquet"]


def test_statuses_are_posted_by_both_and_each_post_is_whole(
    outside: OutsideWorld, jobs_environment: dict[str, str]
) -> None:
    api = jobs_environment["INTERNAL_API_URL"]
    headers = {"X-Internal-Api-Key": jobs_environment["INTERNAL_API_KEY"]}
    status = {"component": "s3", "status": "up", "latency_ms": 5, "detail": "by the cron", "checked_at": AT}

    def theirs() -> None:
        for _ in range(5):
            httpx.post(f"{api}/status", json=status, headers=headers).raise_for_status()

    both(theirs, lambda: succeed("aws_status_check"))
    posts = [one["body"] for one in outside.internal_api.kept()]
    assert [one["component"] for one in posts if one != status] == ["s3", "cloudfront"]
    assert posts.count(status) == 5
    assert outside.storage.keys("status-checks/") == []
