"""What is read of ticks is what Dagster's storage holds, and due times are Dagster's own, whatever the clocks do."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import (
    InstigatorType,
    ScheduleInstigatorData,
    SensorInstigatorData,
)
from dagster._utils.schedules import schedule_execution_time_iterator
from sqlalchemy import create_engine

from seedtrust_ops.dagster_db.ticks import ALWAYS_ON, Ticking, due_times, read_ticks
from seedtrust_ops.definitions import defs
from seedtrust_ops_tests.support.dagster_homes import DagsterHome
from seedtrust_ops_tests.support.ticks import Ticker

OFFICE = ZoneInfo("America/New_York")
NOON = datetime(2026, 7, 1, 12, tzinfo=OFFICE)
Read = Callable[..., Ticking]


@pytest.fixture
def read(dagster_home: DagsterHome, instance: dg.DagsterInstance) -> Iterator[Read]:
    """Reads what is known of the one that is there."""
    engine = create_engine(dagster_home.storage_url)

    def read_one(*, now: datetime = NOON, dev_env: bool = False) -> Ticking:
        with engine.connect() as connection:
            (one,) = read_ticks(connection, zone=OFFICE, dev_env=dev_env, now=now)
        return one

    yield read_one
    engine.dispose()


def schedule(
    instance: dg.DagsterInstance, cron: str, *, on_since: datetime, status: str = "DECLARED_IN_CODE"
) -> Ticker:
    ticker = Ticker(instance, "some_schedule", InstigatorType.SCHEDULE)
    ticker.known(ScheduleInstigatorData(cron, on_since.timestamp()), status)
    return ticker


def sensor(instance: dg.DagsterInstance, seconds: int, *, on_since: datetime, name: str = "some_sensor") -> Ticker:
    ticker = Ticker(instance, name, InstigatorType.SENSOR)
    ticker.known(SensorInstigatorData(min_interval=seconds, last_sensor_start_timestamp=on_since.timestamp()))
    return ticker


def test_every_schedule_of_ours_is_due_when_dagster_says_so_whatever_the_clocks_do() -> None:
    for begin in (datetime(2026, 3, 7, 12, tzinfo=UTC), datetime(2026, 10, 31, 12, tzinfo=UTC)):
        for one in defs.get_repository_def().schedule_defs:
            # A day and a half of a minute-ly one, more than two years of a daily one.
            number = 2_200 if one.cron_schedule == "* * * * *" else 800
            ours = list(islice(due_times([str(one.cron_schedule)], begin, OFFICE), number))
            dagsters = islice(
                schedule_execution_time_iterator(begin.timestamp() + 1, one.cron_schedule, one.execution_timezone),
                number,
            )
            assert ours == [time.astimezone(UTC) for time in dagsters], one.name


def test_several_cron_lines_are_due_in_one_order_and_a_common_time_once() -> None:
    times = islice(due_times(["0 6 * * *", "0 */6 * * *"], datetime(2026, 7, 1, 5, tzinfo=OFFICE), OFFICE), 4)
    assert [time.astimezone(OFFICE).hour for time in times] == [6, 12, 18, 0]


def test_minutely_schedule_is_silent_when_two_ticks_were_missed_and_a_minute_has_passed(
    instance: dg.DagsterInstance, read: Read
) -> None:
    ticker = schedule(instance, "* * * * *", on_since=NOON - timedelta(days=3))
    ticker.tick(NOON - timedelta(minutes=9), "SKIPPED")
    one = read()
    assert (one.name, one.kind, one.is_on, one.interval_seconds) == ("some_schedule", "SCHEDULE", True, 60)
    assert (one.last_tick_at, one.last_tick_status) == (NOON - timedelta(minutes=9), "SKIPPED")
    assert one.due_at == NOON - timedelta(minutes=8)
    assert one.silent_at == NOON - timedelta(minutes=6)


def test_tick_that_began_and_never_ended_is_none(instance: dg.DagsterInstance, read: Read) -> None:
    ticker = schedule(instance, "* * * * *", on_since=NOON - timedelta(days=3))
    ticker.tick(NOON - timedelta(minutes=9))
    ticker.tick(NOON - timedelta(minutes=8), "STARTED")
    one = read()
    assert (one.last_tick_at, one.last_tick_status) == (NOON - timedelta(minutes=8), "STARTED")
    assert one.silent_at == NOON - timedelta(minutes=6)


def test_failing_ticks_are_no_ticks(instance: dg.DagsterInstance, read: Read) -> None:
    ticker = sensor(instance, 30, on_since=NOON - timedelta(days=3))
    ticker.tick(NOON - timedelta(minutes=9), took=timedelta(seconds=10))
    for minutes in range(8, 0, -1):
        ticker.tick(NOON - timedelta(minutes=minutes), "FAILURE")
    one = read()
    assert one.last_tick_status == "FAILURE"
    assert one.last_good_at == NOON - timedelta(minutes=9) + timedelta(seconds=10)
    assert one.silent_at == one.last_good_at + timedelta(seconds=2 * 30 + 60)


def test_sensor_ticks_every_five_seconds_at_best(instance: dg.DagsterInstance, read: Read) -> None:
    sensor(instance, 1, on_since=NOON - timedelta(seconds=7))
    one = read()
    assert one.interval_seconds == 5
    assert one.due_at == NOON - timedelta(seconds=2)
    assert one.silent_at == NOON - timedelta(seconds=7) + timedelta(seconds=70)


def test_daily_schedule_is_late_from_its_hour_on_and_silent_after_two_days(
    instance: dg.DagsterInstance, read: Read
) -> None:
    ticker = schedule(instance, "0 6 * * *", on_since=NOON - timedelta(days=30))
    six = NOON.replace(hour=6)
    ticker.tick(six - timedelta(days=1))
    one = read()
    assert one.due_at == six
    assert one.silent_at == six + timedelta(days=1, seconds=60)
    ticker.tick(six)
    assert read().due_at == six + timedelta(days=1)


def test_days_of_23_and_25_hours_are_still_one_interval(instance: dg.DagsterInstance, read: Read) -> None:
    ticker = schedule(instance, "0 6 * * *", on_since=datetime(2026, 3, 1, tzinfo=OFFICE))
    ticker.tick(datetime(2026, 3, 7, 6, tzinfo=OFFICE))  # the clocks change on the 8th
    assert read().silent_at == datetime(2026, 3, 9, 6, 1, tzinfo=OFFICE)
    ticker.tick(datetime(2026, 10, 31, 6, tzinfo=OFFICE))  # and back on 1 November
    assert read().silent_at == datetime(2026, 11, 2, 6, 1, tzinfo=OFFICE)


def test_what_was_switched_on_a_moment_ago_is_not_late_for_what_it_missed_while_off(
    instance: dg.DagsterInstance, read: Read
) -> None:
    ticker = schedule(instance, "* * * * *", on_since=NOON - timedelta(seconds=20), status="RUNNING")
    ticker.tick(NOON - timedelta(days=5))
    one = read()
    assert one.due_at == NOON
    assert one.silent_at == NOON + timedelta(minutes=2)


def test_what_is_switched_off_is_due_never(instance: dg.DagsterInstance, read: Read) -> None:
    schedule(instance, "* * * * *", on_since=NOON - timedelta(days=3), status="STOPPED")
    one = read()
    assert (one.is_on, one.on_since, one.due_at, one.silent_at) == (False, None, None, None)


@pytest.mark.parametrize("name", ["huntington_batch_sensor", *sorted(ALWAYS_ON)])
def test_on_a_developers_machine_a_row_from_before_keeps_on_only_what_is_always_on(
    name: str, instance: dg.DagsterInstance, read: Read
) -> None:
    sensor(instance, 1, on_since=NOON, name=name)
    assert read(dev_env=True).is_on == (name in ALWAYS_ON)
    assert read(dev_env=False).is_on


def test_a_database_that_no_daemon_has_used_holds_no_ticks(dagster_home: DagsterHome) -> None:
    engine = create_engine(dagster_home.storage_url)
    with engine.connect() as connection:
        assert read_ticks(connection, zone=OFFICE, dev_env=False, now=NOON) == []
    engine.dispose()
