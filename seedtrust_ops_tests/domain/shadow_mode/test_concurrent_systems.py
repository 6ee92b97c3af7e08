"""Both systems live at once by mistake: every job runs beside a fake of its legacy job without damage.

What our side cannot prevent, such as the legacy system's own emails, is in docs/cutover.md.
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
from seedtrust_ops.jobs.account_balance_check import last_complete_week
from seedtrust_ops.orchestration.schedules import office_today
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.sandbox.stack import ExternalServices
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
from seedtrust_ops_tests.domain.shadow_mode.legacy_systems import TIMEOUT, LegacySystems
from seedtrust_ops_tests.jobs.job_runner import process, run
from seedtrust_ops_tests.support.case_factory import CaseFactory
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company

pytestmark = pytest.mark.usefixtures("production")
ROWS = 30
AT = "2026-11-24T11:00:00+00:00"


@pytest.fixture
def legacy(sessions: sessionmaker[Session], bank: BankProcess) -> LegacySystems:
    return LegacySystems(sessions, bank.control)


@pytest.fixture
def factory(sessions: sessionmaker[Session]) -> CaseFactory:
    return CaseFactory(sessions)


def run_concurrently(legacy_job: Callable[[], object], our_job: Callable[[], object]) -> None:
    """Run both at the same time, released by a barrier."""
    start = threading.Barrier(2)

    def work() -> None:
        start.wait(30)
        legacy_job()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        start.wait(30)
        our_job()
        done.result()


def run_successfully(name: str) -> None:
    result = run(name)
    assert result.success, result.messages


def email_keys(sessions: sessionmaker[Session], kind: str) -> list[str]:
    with sessions() as session:
        return list(session.scalars(select(Notification.dedupe_key).where(Notification.kind == kind)))


@pytest.mark.parametrize("by", ["auto:date", "auto:rule"])
def test_request_is_approved_and_notified_once(by: str, factory: CaseFactory, legacy: LegacySystems) -> None:
    case = factory.case()
    if by == "auto:rule":
        factory.rule()
        requests = [factory.request(case, auto_authorize_at=None) for _ in range(ROWS)]
        run_concurrently(legacy.approve_by_rules, lambda: run_successfully("rule_based_approval"))
    else:
        requests = [factory.request(case) for _ in range(ROWS)]
        run_concurrently(legacy.approve_due, lambda: run_successfully("dr_auto_approval"))
    assert sorted(factory.approvals()) == requests
    ours = Counter(key.split(":")[1] for key in factory.emails())
    theirs = {about for _, _, about in legacy.emails}
    # A parent, a representative and a manager each; only the system that approved a request sends its emails.
    assert set(ours.values()) <= {3}
    assert ours.keys() | theirs == {str(request_id) for request_id in requests}
    assert not ours.keys() & theirs


def test_report_is_built_once(factory: CaseFactory, legacy: LegacySystems, sessions: sessionmaker[Session]) -> None:
    admin = factory.user("admin")
    factory.case()
    with sessions.begin() as session:
        session.add_all([ReportRequest(user_id=admin, kind="account_balances", format="csv") for _ in range(ROWS)])
    run_concurrently(legacy.generate_reports, lambda: run_successfully("report_generation"))
    with sessions() as session:
        assert set(session.scalars(select(ReportRequest.status))) == {3}
        ids = set(session.scalars(select(ReportRequest.id)))
    ours = [int(key.split(":")[1]) for key in email_keys(sessions, "report")]
    assert sorted([*ours, *legacy.reports_built]) == sorted(ids)


def test_transaction_is_sent_once(
    company: Company, legacy: LegacySystems, bank: BankProcess, set_variables: SetVariables
) -> None:
    # As in production: how long a legacy batch must have been inactive before ours takes it over.
    set_variables(HUNTINGTON_UNKNOWN_GRACE_SECONDS="600")
    batches = [company.batch([1_000 + number for number in range(8)]) for _ in range(4)]

    def ours() -> None:
        for batch_id in reversed(batches):
            result = process(batch_id)
            # If the legacy worker has the batch, ours says so and skips it.
            assert result.success or "by a worker that holds no lease" in result.messages[-1]

    run_concurrently(lambda: [legacy.send_batch(batch_id) for batch_id in batches], ours)
    transactions = [transaction for batch_id in batches for transaction in company.transactions(batch_id)]
    assert {transaction.status for transaction in transactions} == {"completed"}
    sent = Counter(transfer["reference"] for transfer in bank.control.ledger()["transfers"])
    assert {transaction.id: sent[str(transaction.id)] for transaction in transactions} == {
        transaction.id: 1 for transaction in transactions
    }
    assert {len(company.ledger(transaction.id)) for transaction in transactions} == {1}
    assert company.unbalanced_accounts() == []


def test_concurrent_auto_heal_posts_each_transfer_once(
    company: Company, legacy: LegacySystems, bank: BankProcess
) -> None:
    batch_id = company.batch([2_000 + number for number in range(ROWS)], status="processing")
    transactions = company.transactions(batch_id)
    for index, transaction in enumerate(transactions):
        bank.control.insert_transfer(
            str(transaction.id), transaction.amount_cents, method=transaction.method, status="completed"
        )
        values = {"status": "failed", "failure_reason": TIMEOUT} if index % 5 == 0 else {"status": "submitted"}
        legacy.update_row(HuntingtonTransaction, transaction.id, **values)
    run_concurrently(legacy.heal, lambda: run_successfully("auto_heal_huntington_batches"))
    assert set(company.statuses(batch_id)) == {"completed"}
    assert {len(company.ledger(transaction.id)) for transaction in transactions} == {1}
    assert company.unbalanced_accounts() == []


def test_our_reminders_are_sent_once_beside_the_legacy_ones(
    factory: CaseFactory, legacy: LegacySystems, sessions: sessionmaker[Session], mailbox: MailboxProcess
) -> None:
    cases = [factory.case(close_on=office_today(), balance_cents=1, minimum_balance_cents=10) for _ in range(5)]
    admin = factory.user("admin")
    run_concurrently(
        lambda: legacy.send_case_close_reminders(office_today()), lambda: run_successfully("case_close_reminders")
    )
    run_concurrently(legacy.send_balance_reminders, lambda: run_successfully("account_balance_reminders"))
    for name in ("case_close_reminders", "account_balance_reminders"):
        run_successfully(name)
    assert len(email_keys(sessions, "case-close")) == len(cases)
    assert len(email_keys(sessions, "balance-reminder")) == len(cases) + 1
    with sessions() as session:
        address = session.get_one(User, admin).email
    assert len(mailbox.control.emails(address)) == 1


def test_presence_is_cleared_by_both_without_damage(
    factory: CaseFactory, legacy: LegacySystems, sessions: sessionmaker[Session]
) -> None:
    request = factory.request(factory.case())
    people = [factory.user("admin", is_on_site=True) for _ in range(ROWS)]
    with sessions.begin() as session:
        session.add_all(
            [ViewingDisbursementRequest(user_id=user_id, disbursement_request_id=request) for user_id in people]
        )
    run_concurrently(legacy.clear_presence, lambda: run_successfully("off_site_tracking"))
    with sessions() as session:
        assert not session.scalar(select(func.count()).select_from(User).where(User.is_on_site))
        assert not session.scalar(select(func.count()).select_from(ViewingDisbursementRequest))
        assert session.scalar(select(func.count()).select_from(DisbursementRequest)) == 1


def test_balance_check_opens_one_alert_per_account_during_payments(
    factory: CaseFactory,
    legacy: LegacySystems,
    sessions: sessionmaker[Session],
    company: Company,
    external_services: ExternalServices,
) -> None:
    low = [factory.case(balance_cents=1, minimum_balance_cents=10).account_id for _ in range(ROWS)]
    with sessions.begin() as session:
        session.add_all([LedgerEntry(account_id=account_id, amount_cents=1, kind="deposit") for account_id in low])
    batch_id = company.batch([3_000 + number for number in range(8)])
    week = last_complete_week(office_today())

    def check() -> None:
        assert defs.resolve_job_def("account_balance_check").execute_in_process(partition_key=week).success

    run_concurrently(lambda: legacy.send_batch(batch_id), check)
    check()
    assert company.unbalanced_accounts() == []
    with sessions() as session:
        assert sorted(session.scalars(select(BalanceAlert.account_id))) == sorted(low)
    assert external_services.storage.keys("balances/") == [f"balances/{week}/account_balances.parquet"]


def test_status_posts_of_both_systems_are_complete(
    external_services: ExternalServices, jobs_environment: dict[str, str]
) -> None:
    api = jobs_environment["INTERNAL_API_URL"]
    headers = {"X-Internal-Api-Key": jobs_environment["INTERNAL_API_KEY"]}
    status = {"component": "s3", "status": "up", "latency_ms": 5, "detail": "by the cron", "checked_at": AT}

    def theirs() -> None:
        for _ in range(5):
            httpx.post(f"{api}/status", json=status, headers=headers).raise_for_status()

    run_concurrently(theirs, lambda: run_successfully("aws_status_check"))
    posts = [request["body"] for request in external_services.internal_api.requests()]
    assert [post["component"] for post in posts if post != status] == ["s3", "cloudfront"]
    assert posts.count(status) == 5
    assert external_services.storage.keys("status-checks/") == []
