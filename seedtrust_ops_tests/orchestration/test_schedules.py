"""Calendar schedules launch each due date once, across clock changes, month ends and daemon outages."""

import logging
from datetime import UTC, date, datetime, time, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test, create_test_daemon_workspace_context
from dagster._core.workspace.load_target import ModuleTarget
from dagster._scheduler.scheduler import launch_scheduled_runs
from dagster._utils.schedules import schedule_execution_time_iterator
from hypothesis import given
from hypothesis import strategies as st

from seedtrust_ops.domain.db_transaction import Sessions
from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops.orchestration.schedules import (
    DUE_TAG,
    THIRD_DAY_ANCHOR,
    Weekday,
    daily_schedule,
    every_minute_if,
    interval_schedule,
    last_monday_to_friday,
    last_third_day,
    third_day_schedule,
    weekday_schedule,
    weekly_schedule,
)
from seedtrust_ops_tests.support.environment import SetVariables

NEW_YORK = ZoneInfo("America/New_York")
ZONES = [
    "America/New_York",
    "America/Los_Angeles",
    # Zones in which 01:00 or midnight is skipped or happens twice.
    "Europe/London",
    "Atlantic/Azores",
    "America/Havana",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "UTC",
]


@single_op_job(kind="python", shadow=None)
def counts(_context: dg.OpExecutionContext) -> None: ...


def evaluate(schedule: dg.ScheduleDefinition, tick: datetime, instance: dg.DagsterInstance | None = None) -> str:
    """Return the due date that a tick launches, or its skip reason."""
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=tick)
    data = schedule.evaluate_tick(context)
    if not data.run_requests:
        return data.skip_message or ""
    (request,) = data.run_requests
    assert request.run_key == f"counts:{request.tags[DUE_TAG]}"
    return request.tags[DUE_TAG]


def launch(instance: dg.DagsterInstance, schedule: dg.ScheduleDefinition, due: str, tick: datetime) -> str:
    """Create the run that the scheduler creates for a tick; return its id."""
    return create_run_for_test(
        instance,
        job_name="counts",
        tags={
            DUE_TAG: due,
            "dagster/schedule_name": schedule.name,
            ".dagster/scheduled_execution_time": tick.astimezone(UTC).isoformat(),
        },
    ).run_id


def at(day: date, hour: int, zone: ZoneInfo = NEW_YORK) -> datetime:
    return datetime.combine(day, time(hour), zone)


@pytest.mark.parametrize(
    ("schedule", "cron"),
    [
        (daily_schedule(counts, hour=6), "0 6 * * *"),
        (weekly_schedule(counts, hour=1), "0 1 * * 0"),
        (weekly_schedule(counts, hour=5, minute=30, on=Weekday.MONDAY), "30 5 * * 1"),
        (weekday_schedule(counts, hour=7, minute=30), "30 7 * * 1-5"),
        (third_day_schedule(counts, hour=1), "0 1 * * *"),
        (interval_schedule(counts, minutes=5), "*/5 * * * *"),
    ],
)
def test_schedule_is_named_after_its_job_and_uses_the_office_time_zone(
    schedule: dg.ScheduleDefinition, cron: str
) -> None:
    assert schedule.name == "counts_schedule"
    assert schedule.cron_schedule == cron
    assert schedule.execution_timezone == "America/New_York"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING


@pytest.fixture
def dev_env(set_variables: SetVariables) -> None:
    set_variables(DEV_ENV="1")


@pytest.mark.usefixtures("dev_env")
def test_schedules_start_stopped_with_dev_env() -> None:
    for schedule in (
        daily_schedule(counts, hour=6),
        weekly_schedule(counts, hour=1),
        weekday_schedule(counts, hour=7),
        third_day_schedule(counts, hour=1),
        interval_schedule(counts, minutes=5),
        every_minute_if(counts, find_work=_no_work, find_shadow_work=_no_work, no_work="None.", description="If any."),
    ):
        assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED


def _no_work(_sessions: Sessions) -> None:
    return None


@given(st.dates(date(2020, 1, 1), date(2060, 1, 1)))
def test_weekday_is_monday_to_friday_and_a_weekend_belongs_to_friday(day: date) -> None:
    due = last_monday_to_friday(day)
    assert due.strftime("%A") in ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
    assert (due == day) is (day.isoweekday() <= 5)
    assert timedelta(0) <= day - due <= timedelta(days=2)


@pytest.mark.parametrize("minutes", [7, 45, 90])
def test_interval_that_does_not_divide_the_hour_is_refused(minutes: int) -> None:
    with pytest.raises(ValueError, match=f"so it can't be {minutes} minutes"):
        interval_schedule(counts, minutes=minutes)


@given(st.dates(date(2020, 1, 1), date(2060, 1, 1)))
def test_third_day_is_three_days_after_the_last_in_any_year(day: date) -> None:
    due = last_third_day(day)
    assert (due - THIRD_DAY_ANCHOR).days % 3 == 0
    assert day - timedelta(days=2) <= due <= day
    assert last_third_day(due) == due
    assert last_third_day(due + timedelta(days=3)) == due + timedelta(days=3)


def test_third_days_span_a_leap_february_and_a_year_end() -> None:
    days = (date(2028, 2, 26) + timedelta(days=n) for n in range(9))
    assert [str(day) for day in days if last_third_day(day) == day] == ["2028-02-27", "2028-03-01", "2028-03-04"]
    days = (date(2026, 12, 29) + timedelta(days=n) for n in range(7))
    assert [str(day) for day in days if last_third_day(day) == day] == ["2026-12-31", "2027-01-03"]


@given(st.dates(date(2024, 1, 1), date(2040, 1, 1)))
def test_third_day_schedule_skips_other_days_and_names_the_next_run(day: date) -> None:
    outcome = evaluate(third_day_schedule(counts, hour=1), at(day, 1))
    if last_third_day(day) == day:
        assert outcome == str(day)
    else:
        assert outcome.endswith(f"The next run is on {last_third_day(day) + timedelta(days=3)}.")


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(("cron", "days"), [("0 6 * * *", 1), ("0 1 * * *", 1), ("0 1 * * 0", 7)])
def test_dagster_ticks_once_per_due_day_across_clock_changes(zone: str, cron: str, days: int) -> None:
    # Our schedules rely on this behavior of the pinned Dagster version: a day whose hour is skipped still has a tick,
    # and a day whose hour happens twice has only one.
    start = datetime(2026, 1, 4, tzinfo=ZoneInfo(zone))
    end = start + timedelta(days=3 * 365)
    ticks = takewhile(
        lambda tick: tick < end, schedule_execution_time_iterator(start.timestamp(), cron, execution_timezone=zone)
    )
    dates = [tick.astimezone(ZoneInfo(zone)).date() for tick in ticks]
    assert dates == [date(2026, 1, 4) + timedelta(days=days * n) for n in range(len(dates))]
    assert len(dates) == pytest.approx(3 * 365 / days, abs=1)


def test_repeated_hour_runs_once(instance: dg.DagsterInstance) -> None:
    schedule = weekly_schedule(counts, hour=1)
    first = datetime(2026, 11, 1, 5, tzinfo=UTC)
    second = first + timedelta(hours=1)
    assert {tick.astimezone(NEW_YORK).hour for tick in (first, second)} == {1}
    assert evaluate(schedule, first, instance) == "2026-11-01"
    run_id = launch(instance, schedule, "2026-11-01", first)
    reason = evaluate(schedule, second, instance)
    assert reason == f"Already launched for 2026-11-01 as run {run_id}. The next run is on 2026-11-08."


def test_tick_that_crashed_before_launching_its_run_requests_it_again(instance: dg.DagsterInstance) -> None:
    # Dagster then finds the existing run by its tick and run key, and launches it.
    schedule = daily_schedule(counts, hour=6)
    tick = at(date(2026, 3, 9), 6)
    launch(instance, schedule, "2026-03-09", tick)
    assert evaluate(schedule, tick, instance) == "2026-03-09"


def test_manual_run_does_not_replace_the_scheduled_run(instance: dg.DagsterInstance) -> None:
    create_run_for_test(instance, job_name="counts")
    assert evaluate(daily_schedule(counts, hour=6), at(date(2026, 3, 9), 6), instance) == "2026-03-09"


def test_replayed_older_tick_launches_nothing(instance: dg.DagsterInstance) -> None:
    schedule = daily_schedule(counts, hour=6)
    run_id = launch(instance, schedule, "2026-03-09", at(date(2026, 3, 9), 6))
    assert run_id in evaluate(schedule, at(date(2026, 3, 8), 6), instance)


def test_reexecution_of_an_earlier_run_repeats_no_due_date(instance: dg.DagsterInstance) -> None:
    schedule = third_day_schedule(counts, hour=1)
    due = last_third_day(date(2026, 3, 9))
    before, after = due - timedelta(days=3), due + timedelta(days=1)
    launch(instance, schedule, str(before), at(before, 1))
    run_id = launch(instance, schedule, str(due), at(due, 1))
    # A re-execution has its parent's tags, and is the newest run.
    launch(instance, schedule, str(before), at(before, 1))
    assert run_id in evaluate(schedule, at(after, 1), instance)
    assert evaluate(schedule, at(due + timedelta(days=3), 1), instance) == str(due + timedelta(days=3))


def test_missed_third_day_is_launched_once_on_the_next_day(instance: dg.DagsterInstance) -> None:
    schedule = third_day_schedule(counts, hour=1)
    due = last_third_day(date(2026, 3, 9))
    before, after = due - timedelta(days=3), due + timedelta(days=1)
    launch(instance, schedule, str(before), at(before, 1))
    assert evaluate(schedule, at(after, 1), instance) == str(due)
    run_id = launch(instance, schedule, str(due), at(after, 1))
    assert run_id in evaluate(schedule, at(after + timedelta(days=1), 1), instance)
    assert evaluate(schedule, at(due + timedelta(days=3), 1), instance) == str(due + timedelta(days=3))


def test_weekend_outage_is_caught_up_once_per_job(instance: dg.DagsterInstance) -> None:
    """Uses Dagster's own scheduler and the project's definitions; down from Friday noon to Monday 09:00."""
    friday, monday = at(date(2026, 3, 6), 12), at(date(2026, 3, 9), 9)
    target = ModuleTarget("seedtrust_ops.definitions", None, None, "seedtrust_ops")
    with create_test_daemon_workspace_context(target, instance) as workspace:
        for now in (friday, monday, monday + timedelta(minutes=1), monday + timedelta(hours=14)):
            ticks = launch_scheduled_runs(workspace, logging.getLogger("scheduler"), now.astimezone(UTC), {})
            assert [error for error in ticks if error is not None] == []
    due = {
        job: [run.tags[DUE_TAG] for run in instance.get_runs(dg.RunsFilter(job_name=job))]
        for job in ("dr_auto_approval", "case_close_reminders", "account_balance_check", "account_balance_reminders")
    }
    assert due == {
        "dr_auto_approval": ["2026-03-09"],
        "case_close_reminders": ["2026-03-09"],
        "account_balance_check": ["2026-03-08"],
        "account_balance_reminders": ["2026-03-09"],
    }
