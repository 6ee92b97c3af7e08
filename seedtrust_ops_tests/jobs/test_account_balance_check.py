"""The weekly balance check: its file, its figures, its alerts and the four accounting checks."""

import threading
from datetime import date, datetime, timedelta
from io import BytesIO
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from pyarrow import parquet
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.definitions import defs
from seedtrust_ops.domain.balances.snapshot import BalanceSnapshot, write_balance_snapshot
from seedtrust_ops.jobs.account_balance_check import WEEKS, account_balance_check_schedule, last_complete_week
from seedtrust_ops.orchestration.schedules import office_today
from seedtrust_ops.sandbox.stack import ExternalServices
from seedtrust_ops.tables import Account, BalanceAlert, Case
from seedtrust_ops_tests.jobs.job_runner import range_tags
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import BuiltCase, Company

WEEK = last_complete_week(office_today())


def run(week: str = WEEK) -> dg.ExecuteInProcessResult:
    job = defs.resolve_job_def("account_balance_check")
    return job.execute_in_process(partition_key=week, raise_on_error=False)


def set_account(company: Company, case: BuiltCase, **columns: int) -> None:
    with company.sessions.begin() as session:
        session.execute(update(Account).where(Account.id == case.account_id).values(**columns))


def set_status(company: Company, case: BuiltCase, status: str) -> None:
    with company.sessions.begin() as session:
        session.execute(update(Case).where(Case.id == case.case_id).values(status=status))


def alerts(company: Company) -> list[tuple[int, int, bool]]:
    """Return the account, the shortfall and whether it is open, for every balance alert."""
    with company.sessions() as session:
        rows = session.scalars(select(BalanceAlert).order_by(BalanceAlert.id)).all()
        return [(row.account_id, row.shortfall_cents, row.resolved_at is None) for row in rows]


def evaluations(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def test_snapshot_has_every_active_case_and_shows_its_figures(
    company: Company, external_services: ExternalServices, jobs_environment: dict[str, str]
) -> None:
    rich, poor, closed = (company.case(balance_cents=cents) for cents in (900_000, 120_050, 50))
    for case in (rich, poor, closed):
        set_account(company, case, minimum_balance_cents=500_000)
    set_status(company, closed, "closed")
    result = run()
    assert result.success
    key = f"balances/{WEEK}/account_balances.parquet"
    rows = parquet.read_table(BytesIO(external_services.storage.read(key))).to_pylist()
    assert [(row["account_id"], row["balance_cents"], row["shortfall_cents"]) for row in rows] == [
        (rich.account_id, 900_000, 0),
        (poor.account_id, 120_050, 379_950),
    ]
    (materialization,) = result.asset_materializations_for_node("account_balances")
    assert materialization.partition == WEEK
    shown = {name: value.value for name, value in materialization.metadata.items()}
    assert (shown["Accounts"], shown["Below minimum"]) == (2, 1)
    assert shown["Total shortfall"] == "$3,799.50"
    assert shown["Location"] == f"s3://{external_services.storage.bucket}/{key}"
    assert "| $1,200.50 | $5,000.00 | $3,799.50 |" in shown["Largest shortfalls (first 1 of 1)"]
    assert shown["Histogram"].startswith("![Active case accounts by balance](data:image/png;base64,")
    assert all(evaluation.passed for evaluation in evaluations(result).values())


def test_alerts_are_opened_kept_updated_and_resolved(
    company: Company, sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    case, other = company.case(balance_cents=100), company.case(balance_cents=100)
    set_account(company, case, minimum_balance_cents=300)
    set_account(company, other, minimum_balance_cents=300)
    path = tmp_path / "balances.parquet"
    assert write_balance_snapshot(sessions, path).alerts.opened == 2
    again = write_balance_snapshot(sessions, path)
    assert (again.alerts.opened, again.alerts.resolved, again.alerts.changed) == (0, 0, 0)
    set_account(company, case, balance_cents=50)
    set_status(company, other, "closed")
    changed = write_balance_snapshot(sessions, path)
    assert (changed.alerts.opened, changed.alerts.resolved, changed.alerts.changed) == (0, 1, 1)
    assert alerts(company) == [(case.account_id, 250, True), (other.account_id, 200, False)]
    set_account(company, case, balance_cents=300)
    write_balance_snapshot(sessions, path)
    set_account(company, case, balance_cents=299)
    write_balance_snapshot(sessions, path)
    assert [alert for alert in alerts(company) if alert[0] == case.account_id] == [
        (case.account_id, 250, False),
        (case.account_id, 1, True),
    ]


def test_concurrent_checks_open_each_alert_once(
    company: Company, sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    for _ in range(30):
        set_account(company, company.case(balance_cents=1), minimum_balance_cents=2)
    snapshots: list[BalanceSnapshot] = []
    threads = [
        threading.Thread(
            target=lambda n=n: snapshots.append(write_balance_snapshot(sessions, tmp_path / f"{n}.parquet"))
        )
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(snapshot.alerts.opened for snapshot in snapshots) == [0, 0, 30]
    assert len(alerts(company)) == 30


def test_block_size_does_not_change_file_or_figures(
    company: Company, sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    for number in range(25):
        set_account(company, company.case(balance_cents=number), minimum_balance_cents=20)
    small, large = (write_balance_snapshot(sessions, tmp_path / f"{block}.parquet", block=block) for block in (4, 1000))
    assert (small.accounts, small.balance_cents, small.below_minimum) == (25, sum(range(25)), 20)
    small.alerts = large.alerts
    assert small == large
    assert small.worst[0]["shortfall_cents"] == 20
    tables = [parquet.read_table(tmp_path / f"{block}.parquet").to_pylist() for block in (4, 1000)]
    assert tables[0] == tables[1]


def test_empty_portfolio_writes_a_valid_file_without_rows(sessions: sessionmaker[Session], tmp_path: Path) -> None:
    snapshot = write_balance_snapshot(sessions, tmp_path / "none.parquet")
    assert snapshot.accounts == parquet.read_table(tmp_path / "none.parquet").num_rows == 0


def test_accounting_violations_are_explained_and_listed(company: Company, jobs_environment: dict[str, str]) -> None:
    mismatched, negative, overcommitted = (
        company.case(balance_cents=1_000),
        company.case(),
        company.case(balance_cents=500),
    )
    set_account(company, mismatched, balance_cents=1_001)
    set_account(company, negative, balance_cents=-5)
    company.request(overcommitted, 300)
    company.request(overcommitted, 201)
    with company.sessions.begin() as session:
        session.add(Case(case_number="CASE-without"))
    result = run()
    assert result.success
    found = evaluations(result)
    assert {name: evaluation.passed for name, evaluation in found.items()} == dict.fromkeys(found, False)
    assert len(found) == 4
    assert str(found["balance_equals_ledger"].description).startswith(
        "Account balances that do not match the ledger: 2."
    )
    assert "| -$100,000.05 |" in str(found["balance_equals_ledger"].metadata["First violations"].value)
    assert "-$0.05" in str(found["no_negative_balance"].metadata["First violations"].value)
    assert "CASE-without" in str(found["active_case_has_account"].metadata["First violations"].value)
    assert "| $5.01 | $5.00 | $0.01 |" in str(found["approved_is_covered"].metadata["First violations"].value)
    assert company.open_alerts() == [("accounting_check_failed", name) for name in sorted(found)]


def test_failed_check_notifies_people_until_it_passes(company: Company, jobs_environment: dict[str, str]) -> None:
    case = company.case()
    set_account(company, case, balance_cents=-5)
    run()
    assert ("accounting_check_failed", "no_negative_balance") in company.open_alerts()
    set_account(company, case, balance_cents=10_000_000)
    run()
    assert company.open_alerts() == []


@pytest.mark.parametrize(
    ("first", "last", "refused"),
    [
        ("2026-01-04", "2026-01-04", "the week of 2026-01-04: only"),
        ("2026-01-04", "2026-01-18", "3 weeks from 2026-01-04 to 2026-01-18: only"),
        # Neither is this week written, or the run would have succeeded for some weeks and failed for others.
        (last_complete_week(office_today() - timedelta(days=7)), WEEK, "the week of 20"),
    ],
)
def test_past_weeks_cannot_be_written(
    company: Company,
    jobs_environment: dict[str, str],
    external_services: ExternalServices,
    first: str,
    last: str,
    refused: str,
) -> None:
    before = external_services.storage.keys("balances/")
    job = defs.resolve_job_def("account_balance_check")
    result = job.execute_in_process(tags=range_tags(first, last), raise_on_error=False)
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    message = str(failure.step_failure_data.user_failure_data)
    assert f"Cannot write the balances for {refused}" in message
    assert f"Launch the partition {WEEK} alone instead." in message
    assert external_services.storage.keys("balances/") == before


def test_missing_bucket_fails_the_run_with_a_readable_message(
    company: Company,
    jobs_environment: dict[str, str],
    external_services: ExternalServices,
    set_variables: SetVariables,
) -> None:
    set_variables(REPORTS_BUCKET="no-such-bucket")
    result = run()
    (failure, *_) = [event for event in result.all_events if event.is_step_failure]
    assert "There is no S3 bucket no-such-bucket" in str(failure.step_failure_data.user_failure_data)


@pytest.mark.parametrize(
    ("day", "week"),
    [
        (date(2026, 11, 22), "2026-11-15"),
        (date(2026, 11, 23), "2026-11-15"),
        (date(2026, 11, 28), "2026-11-15"),
        (date(2026, 11, 29), "2026-11-22"),
        (date(2027, 1, 3), "2026-12-27"),
    ],
)
def test_week_is_the_last_complete_one(day: date, week: str) -> None:
    assert last_complete_week(day) == week
    assert WEEKS.has_partition_key(week) or day > office_today()


def test_schedule_requests_the_week_that_ended() -> None:
    tick = datetime(2026, 11, 22, 1, tzinfo=ZoneInfo("America/New_York"))
    context = dg.build_schedule_context(scheduled_execution_time=tick, repository_def=defs.get_repository_def())
    (request,) = account_balance_check_schedule.evaluate_tick(context).run_requests or []
    assert request.partition_key == "2026-11-15"
