"""The weekly operations review: figures match the tables, by day in the office's time zone."""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.definitions import defs
from seedtrust_ops.domain.operations_review.weekly_figures import DailyFigures, load_week
from seedtrust_ops.jobs.operations_review import NAME, WEEKS, last_complete_week, operations_review_schedule
from seedtrust_ops.orchestration.schedules import office_today
from seedtrust_ops.tables import Alert, JobRun, LedgerEntry, ReportRequest
from seedtrust_ops_tests.jobs.job_runner import range_tags
from seedtrust_ops_tests.support.case_factory import CaseFactory
from seedtrust_ops_tests.support.factories import Company

NEW_YORK = "America/New_York"
MONDAY = date(2026, 3, 2)
"""The week whose Sunday is the start of daylight saving."""
LAST_MINUTE = datetime(2026, 3, 8, 23, 59, tzinfo=ZoneInfo(NEW_YORK))


@pytest.fixture
def week_data(company: Company, sessions: sessionmaker[Session]) -> None:
    """Rows at noon on Tuesday, in the last minute of the week, and just outside the week."""
    noon = datetime(2026, 3, 3, 12, tzinfo=ZoneInfo(NEW_YORK))
    before = datetime(2026, 3, 1, 23, 59, tzinfo=ZoneInfo(NEW_YORK))
    after = LAST_MINUTE + timedelta(minutes=1)
    factory = CaseFactory(sessions)
    case, requester = factory.case(), factory.user("admin")
    for time, statuses in (
        (noon, ["COMPLETED", "COMPLETED", "ERROR", "EXPIRED"]),
        (LAST_MINUTE, ["REVOKED", "ERROR", "ERROR"]),
        (before, ["ERROR"]),
        (after, ["ERROR"]),
    ):
        with sessions.begin() as session:
            session.add_all(
                JobRun(
                    run_id=f"{time}-{number}",
                    task_name="report_generation" if status == "ERROR" else "dr_auto_approval",
                    status=status,
                    queued_at=time,
                    started_at=time,
                    finished_at=time + timedelta(seconds=90),
                )
                for number, status in enumerate(statuses)
            )
            session.add_all(
                LedgerEntry(account_id=case.account_id, amount_cents=cents, kind=kind, posted_at=time)
                for kind, cents in (("disbursement", -1_050), ("disbursement", -50), ("reversal", 50), ("deposit", 7))
            )
            session.add_all(
                ReportRequest(
                    user_id=requester,
                    kind="account_balances",
                    status=status,
                    requested_at=time - timedelta(seconds=seconds),
                    finished_at=time,
                )
                for status, seconds in ((3, 60), (3, 120), (4, 600))
            )
            session.add(Alert(rule="batch_stuck", subject=str(time), severity="HIGH", detail="", opened_at=time))
        factory.request(case, 2_500, status="paid", approved_at=time, approved_by="auto:date")
        factory.request(case, 100, status="pending")


DAY = {
    "approvals": 1,
    "approved_cents": 2_500,
    "moved_cents": 1_100,
    "returned_cents": 50,
    "reports": 2,
    "reports_failed": 1,
    "median_wait_seconds": 120.0,
    "max_wait_seconds": 600.0,
}


@pytest.mark.usefixtures("week_data")
def test_week_counts_only_what_happened_in_it(sessions: sessionmaker[Session]) -> None:
    with sessions() as session:
        week = load_week(session, MONDAY, NEW_YORK)
    tuesday = DailyFigures(date(2026, 3, 3), runs=4, failed=1, not_executed=1, **DAY)  # type: ignore[arg-type]
    sunday = DailyFigures(date(2026, 3, 8), runs=3, failed=2, not_executed=1, **DAY)  # type: ignore[arg-type]
    assert list(week.days) == [
        DailyFigures(MONDAY),
        tuesday,
        *(DailyFigures(date(2026, 3, day)) for day in (4, 5, 6, 7)),
        sunday,
    ]
    assert [(job.name, job.runs, job.failed, job.not_executed, job.max_seconds) for job in week.jobs] == [
        ("report_generation", 3, 3, 0, 90.0),
        ("dr_auto_approval", 4, 0, 2, 90.0),
    ]
    assert week.alerts == {"batch_stuck": 2}


@pytest.mark.usefixtures("week_data", "bank_environment")
def test_asset_shows_the_week_as_a_chart_and_tables() -> None:
    result = defs.resolve_job_def(NAME).execute_in_process(partition_key=str(MONDAY), raise_on_error=False)
    assert result.success
    (materialization,) = result.asset_materializations_for_node("operations_week")
    assert materialization.partition == "2026-03-02"
    shown = {name: value.value for name, value in materialization.metadata.items()}
    assert str(shown["Chart"]).startswith("![The week](data:image/png;base64,")
    assert (shown["Runs"], shown["Failed runs"], shown["Approvals"]) == (7, 3, 2)
    assert (shown["Money moved"], shown["Money moved (dollars)"]) == ("$22.00", 22.0)
    assert "| Tue 3 | 4 | 1 | 1 | $25.00 | $11.00 | $0.50 | 2 | 2m |" in str(shown["By day"])
    assert "| report&#95;generation | 3 | 3 | 0 | 90s |" in str(shown["By job"])


@pytest.mark.usefixtures("week_data", "bank_environment")
def test_range_shows_each_week() -> None:
    result = defs.resolve_job_def(NAME).execute_in_process(
        tags=range_tags("2026-02-23", "2026-03-09"), raise_on_error=False
    )
    assert result.success
    runs = {
        one.partition: one.metadata["Runs"].value for one in result.asset_materializations_for_node("operations_week")
    }
    assert (len(runs), runs["2026-03-02"]) == (3, 7)


@pytest.mark.usefixtures("bank_environment")
def test_week_without_work_is_materialized() -> None:
    result = defs.resolve_job_def(NAME).execute_in_process(raise_on_error=False)
    assert result.success
    assert result.output_for_node("operations_week")["week"] == last_complete_week(office_today())


@pytest.mark.parametrize(
    ("day", "week"),
    [
        (date(2026, 11, 22), "2026-11-09"),
        (date(2026, 11, 23), "2026-11-16"),
        (date(2026, 11, 29), "2026-11-16"),
        (date(2027, 1, 4), "2026-12-28"),
    ],
)
def test_week_is_the_last_complete_one_starting_on_monday(day: date, week: str) -> None:
    assert last_complete_week(day) == week
    assert WEEKS.has_partition_key(week) or day > office_today()


def test_schedule_requests_the_week_that_ended_on_monday() -> None:
    tick = datetime(2026, 11, 23, 5, 30, tzinfo=ZoneInfo(NEW_YORK))
    context = dg.build_schedule_context(scheduled_execution_time=tick, repository_def=defs.get_repository_def())
    (request,) = operations_review_schedule.evaluate_tick(context).run_requests or []
    assert request.partition_key == "2026-11-16"
