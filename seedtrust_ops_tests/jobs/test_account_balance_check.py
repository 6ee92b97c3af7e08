"""The weekly balance check: its file, its figures, its alerts and the four checks of the books."""

import threading
from datetime import date, datetime
from io import BytesIO
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from pyarrow import parquet
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import get_settings
from seedtrust_ops.definitions import defs
from seedtrust_ops.domain.balances.snapshot import BalanceSheet, take_balances
from seedtrust_ops.jobs.account_balance_check import WEEKS, account_balance_check_schedule, week_ended_by
from seedtrust_ops.orchestration.schedules import office_today
from seedtrust_ops.sandbox.external_services.server_group import OutsideWorld
from seedtrust_ops.tables import Account, BalanceAlert, Case
from seedtrust_ops_tests.support.factories import BuiltCase, Company

WEEK = week_ended_by(office_today())


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
    """Account, shortfall, and whether it is open, of every balance alert."""
    with company.sessions() as session:
        rows = session.scalars(select(BalanceAlert).order_by(BalanceAlert.id)).all()
        return [(row.account_id, row.shortfall_cents, row.resolved_at is None) for row in rows]


def evaluations(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {one.check_name: one for one in result.get_asset_check_evaluations()}


def test_it_writes_every_active_case_and_shows_what_it_saw(
    company: Company, outside: OutsideWorld, jobs_environment: dict[str, str]
) -> None:
    rich, poor, closed = (company.case(balance_cents=cents) for cents in (900_000, 120_050, 50))
    for case in (rich, poor, closed):
        set_account(company, case, minimum_balance_cents=500_000)
    set_status(company, closed, "closed")
    result = run()
    assert result.success
    key = f"balances/{WEEK}/account_balances.parquet"
    rows = parquet.read_table(BytesIO(outside.storage.read(key))).to_pylist()
    assert [(row["account_id"], row["balance_cents"], row["shortfall_cents"]) for row in rows] == [
        (rich.account_id, 900_000, 0),
        (poor.account_id, 120_050, 379_950),
    ]
    (materialization,) = result.asset_materializations_for_node("account_balances")
    assert materialization.partition == WEEK
    shown = {name: value.value for name, value in materialization.metadata.items()}
    assert (shown["accounts"], shown["below their minimum"]) == (2, 1)
    assert shown["shortfall of all"] == "$3,799.50"
    assert shown["where"] == f"s3://{outside.storage.bucket}/{key}"
    assert "| $1,200.50 | $5,000.00 | $3,799.50 |" in shown["furthest below their minimum (first 1 of 1)"]
    assert shown["histogram"].startswith("![Accounts of active cases by what they hold](data:image/png;base64,")
    assert all(one.passed for one in evaluations(result).values())


def test_alerts_are_opened_kept_corrected_and_resolved(
    company: Company, sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    case, other = company.case(balance_cents=100), company.case(balance_cents=100)
    set_account(company, case, minimum_balance_cents=300)
    set_account(company, other, minimum_balance_cents=300)
    path = tmp_path / "balances.parquet"
    assert take_balances(sessions, path).alerts.opened == 2
    again = take_balances(sessions, path)
    assert (again.alerts.opened, again.alerts.resolved, again.alerts.changed) == (0, 0, 0)
    set_account(company, case, balance_cents=50)
    set_status(company, other, "closed")
    changed = take_balances(sessions, path)
    assert (changed.alerts.opened, changed.alerts.resolved, changed.alerts.changed) == (0, 1, 1)
    assert alerts(company) == [(case.account_id, 250, True), (other.account_id, 200, False)]
    set_account(company, case, balance_cents=300)
    take_balances(sessions, path)
    set_account(company, case, balance_cents=299)
    take_balances(sessions, path)
    assert [alert for alert in alerts(company) if alert[0] == case.account_id] == [
        (case.account_id, 250, False),
        (case.account_id, 1, True),
    ]


def test_two_checks_at_once_open_each_alert_once(
    company: Company, sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    for _ in range(30):
        set_account(company, company.case(balance_cents=1), minimum_balance_cents=2)
    sheets: list[BalanceSheet] = []
    threads = [
        threading.Thread(target=lambda n=n: sheets.append(take_balances(sessions, tmp_path / f"{n}.parquet")))
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sheet.alerts.opened for sheet in sheets) == [0, 0, 30]
    assert len(alerts(company)) == 30


def test_blocks_leave_nobody_out_and_figures_are_those_of_all(
    company: Company, sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    for number in range(25):
        set_account(company, company.case(balance_cents=number), minimum_balance_cents=20)
    small, large = (take_balances(sessions, tmp_path / f"{block}.parquet", block=block) for block in (4, 1000))
    assert (small.accounts, small.balance_cents, small.below_minimum) == (25, sum(range(25)), 20)
    small.alerts = large.alerts
    assert small == large
    assert small.worst[0]["shortfall_cents"] == 20
    tables = [parquet.read_table(tmp_path / f"{block}.parquet").to_pylist() for block in (4, 1000)]
    assert tables[0] == tables[1]


def test_no_account_at_all_is_a_whole_file_with_no_rows(sessions: sessionmaker[Session], tmp_path: Path) -> None:
    sheet = take_balances(sessions, tmp_path / "none.parquet")
    assert sheet.accounts == parquet.read_table(tmp_path / "none.parquet").num_rows == 0


def test_what_does_not_add_up_is_told_with_a_sentence_and_a_table(
    company: Company, jobs_environment: dict[str, str]
) -> None:
    off, negative, promised = company.case(balance_cents=1_000), company.case(), company.case(balance_cents=500)
    set_account(company, off, balance_cents=1_001)
    set_account(company, negative, balance_cents=-5)
    company.request(promised, 300)
    company.request(promised, 201)
    with company.sessions.begin() as session:
        session.add(Case(case_number="CASE-without"))
    result = run()
    assert result.success
    found = evaluations(result)
    assert {name: one.passed for name, one in found.items()} == dict.fromkeys(found, False)
    assert len(found) == 4
    assert str(found["balance_equals_ledger"].description).startswith("2 accounts hold something else than")
    assert "| -$100,000.05 |" in str(found["balance_equals_ledger"].metadata["offenders"].value)
    assert "-$0.05" in str(found["no_negative_balance"].metadata["offenders"].value)
    assert "CASE-without" in str(found["active_case_has_account"].metadata["offenders"].value)
    assert "| $5.01 | $5.00 | $0.01 |" in str(found["approved_is_covered"].metadata["offenders"].value)


def test_a_week_that_is_over_can_t_be_made_up(company: Company, jobs_environment: dict[str, str]) -> None:
    result = run("2026-01-04")
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "The balances of the week from 2026-01-04 can't be written now" in str(
        failure.step_failure_data.user_failure_data
    )


def test_a_bucket_that_is_not_there_fails_the_run_with_a_sentence(
    company: Company, jobs_environment: dict[str, str], outside: OutsideWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPORTS_BUCKET", "no-such-bucket")
    get_settings.cache_clear()
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
def test_the_week_is_the_last_one_that_has_ended(day: date, week: str) -> None:
    assert week_ended_by(day) == week
    assert WEEKS.has_partition_key(week) or day > office_today()


def test_the_schedule_asks_for_the_week_that_ended() -> None:
    tick = datetime(2026, 11, 22, 1, tzinfo=ZoneInfo("America/New_York"))
    context = dg.build_schedule_context(scheduled_execution_time=tick, repository_def=defs.get_repository_def())
    (request,) = account_balance_check_schedule.evaluate_tick(context).run_requests or []
    assert request.partition_key == "2026-11-15"
