"""Ticks are read as Dagster stores them, and due times match Dagster's, also when daylight saving changes."""

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

from seedtrust_ops.dagster_db.daemon_activity import ALWAYS_ON, AutomationTicks, due_times, read_ticks
from seedtrust_ops.definitions import defs
from seedtrust_ops_tests.support.dagster_homes import DagsterHome
from seedtrust_ops_tests.support.ticks import TickRecorder

EASTERN = ZoneInfo("America/New_York")
NOON = datetime(2026, 7, 1, 12, tzinfo=EASTERN)
ReadTicks = Callable[..., AutomationTicks]


@pytest.fixture
def ticks_reader(dagster_home: DagsterHome, instance: dg.DagsterInstance) -> Iterator[ReadTicks]:
    """Return a function that reads the ticks of the only automation."""
    engine = create_engine(dagster_home.storage_url)

    def read_one(*, now: datetime = NOON, dev_env: bool = False) -> AutomationTicks:
        with engine.connect() as connection:
            (ticks,) = read_ticks(connection, zone=EASTERN, dev_env=dev_env, now=now)
        return ticks

    yield read_one
    engine.dispose()


def record_schedule(
    instance: dg.DagsterInstance, cron: str, *, on_since: datetime, status: str = "DECLARED_IN_CODE"
) -> TickRecorder:
    recorder = TickRecorder(instance, "some_schedule", InstigatorType.SCHEDULE)
    recorder.register(ScheduleInstigatorData(cron, on_since.timestamp()), status)
    return recorder


def record_sensor(
    instance: dg.DagsterInstance, seconds: int, *, on_since: datetime, name: str = "some_sensor"
) -> TickRecorder:
    recorder = TickRecorder(instance, name, InstigatorType.SENSOR)
    recorder.register(SensorInstigatorData(min_interval=seconds, last_sensor_start_timestamp=on_since.timestamp()))
    return recorder


def test_due_times_match_dagsters_when_daylight_saving_changes() -> None:
    for start in (datetime(2026, 3, 7, 12, tzinfo=UTC), datetime(2026, 10, 31, 12, tzinfo=UTC)):
        for schedule in defs.get_repository_def().schedule_defs:
            # A day and a half for a minutely schedule, more than two years for a daily one.
            number = 2_200 if schedule.cron_schedule == "* * * * *" else 800
            computed = list(islice(due_times([str(schedule.cron_schedule)], start, EASTERN), number))
            expected = islice(
                schedule_execution_time_iterator(
                    start.timestamp() + 1, schedule.cron_schedule, schedule.execution_timezone
                ),
                number,
            )
            assert computed == [time.astimezone(UTC) for time in expected], schedule.name


def test_due_times_of_several_cron_strings_are_merged() -> None:
    times = islice(due_times(["0 6 * * *", "0 */6 * * *"], datetime(2026, 7, 1, 5, tzinfo=EASTERN), EASTERN), 4)
    assert [time.astimezone(EASTERN).hour for time in times] == [6, 12, 18, 0]


def test_minutely_schedule_is_silent_after_two_missed_ticks(
    instance: dg.DagsterInstance, ticks_reader: ReadTicks
) -> None:
    recorder = record_schedule(instance, "* * * * *", on_since=NOON - timedelta(days=3))
    recorder.tick(NOON - timedelta(minutes=9), "SKIPPED")
    ticks = ticks_reader()
    assert (ticks.name, ticks.kind, ticks.is_on, ticks.interval_seconds) == ("some_schedule", "SCHEDULE", True, 60)
    assert (ticks.last_tick_at, ticks.last_tick_status) == (NOON - timedelta(minutes=9), "SKIPPED")
    assert ticks.due_at == NOON - timedelta(minutes=8)
    assert ticks.silent_at == NOON - timedelta(minutes=6)


def test_tick_that_never_ended_does_not_count(instance: dg.DagsterInstance, ticks_reader: ReadTicks) -> None:
    recorder = record_schedule(instance, "* * * * *", on_since=NOON - timedelta(days=3))
    recorder.tick(NOON - timedelta(minutes=9))
    recorder.tick(NOON - timedelta(minutes=8), "STARTED")
    ticks = ticks_reader()
    assert (ticks.last_tick_at, ticks.last_tick_status) == (NOON - timedelta(minutes=8), "STARTED")
    assert ticks.silent_at == NOON - timedelta(minutes=6)


def test_failed_ticks_do_not_count(instance: dg.DagsterInstance, ticks_reader: ReadTicks) -> None:
    recorder = record_sensor(instance, 30, on_since=NOON - timedelta(days=3))
    recorder.tick(NOON - timedelta(minutes=9), duration=timedelta(seconds=10))
    for minutes in range(8, 0, -1):
        recorder.tick(NOON - timedelta(minutes=minutes), "FAILURE")
    ticks = ticks_reader()
    assert ticks.last_tick_status == "FAILURE"
    assert ticks.last_good_at == NOON - timedelta(minutes=9) + timedelta(seconds=10)
    assert ticks.silent_at == ticks.last_good_at + timedelta(seconds=2 * 30 + 60)


def test_sensor_interval_is_at_least_five_seconds(instance: dg.DagsterInstance, ticks_reader: ReadTicks) -> None:
    record_sensor(instance, 1, on_since=NOON - timedelta(seconds=7))
    ticks = ticks_reader()
    assert ticks.interval_seconds == 5
    assert ticks.due_at == NOON - timedelta(seconds=2)
    assert ticks.silent_at == NOON - timedelta(seconds=7) + timedelta(seconds=70)


def test_daily_schedule_is_silent_after_two_missed_days(instance: dg.DagsterInstance, ticks_reader: ReadTicks) -> None:
    recorder = record_schedule(instance, "0 6 * * *", on_since=NOON - timedelta(days=30))
    six = NOON.replace(hour=6)
    recorder.tick(six - timedelta(days=1))
    ticks = ticks_reader()
    assert ticks.due_at == six
    assert ticks.silent_at == six + timedelta(days=1, seconds=60)
    recorder.tick(six)
    assert ticks_reader().due_at == six + timedelta(days=1)


def test_daily_interval_follows_daylight_saving(instance: dg.DagsterInstance, ticks_reader: ReadTicks) -> None:
    recorder = record_schedule(instance, "0 6 * * *", on_since=datetime(2026, 3, 1, tzinfo=EASTERN))
    recorder.tick(datetime(2026, 3, 7, 6, tzinfo=EASTERN))  # the clocks change on the 8th
    assert ticks_reader().silent_at == datetime(2026, 3, 9, 6, 1, tzinfo=EASTERN)
    recorder.tick(datetime(2026, 10, 31, 6, tzinfo=EASTERN))  # and back on 1 November
    assert ticks_reader().silent_at == datetime(2026, 11, 2, 6, 1, tzinfo=EASTERN)


def test_schedule_just_switched_on_is_not_late_for_its_time_off(
    instance: dg.DagsterInstance, ticks_reader: ReadTicks
) -> None:
    recorder = record_schedule(instance, "* * * * *", on_since=NOON - timedelta(seconds=20), status="RUNNING")
    recorder.tick(NOON - timedelta(days=5))
    ticks = ticks_reader()
    assert ticks.due_at == NOON
    assert ticks.silent_at == NOON + timedelta(minutes=2)


def test_schedule_switched_off_is_never_due(instance: dg.DagsterInstance, ticks_reader: ReadTicks) -> None:
    record_schedule(instance, "* * * * *", on_since=NOON - timedelta(days=3), status="STOPPED")
    ticks = ticks_reader()
    assert (ticks.is_on, ticks.on_since, ticks.due_at, ticks.silent_at) == (False, None, None, None)


@pytest.mark.parametrize("name", ["huntington_batch_sensor", *sorted(ALWAYS_ON)])
def test_dev_env_turns_off_all_but_the_always_on_sensors(
    name: str, instance: dg.DagsterInstance, ticks_reader: ReadTicks
) -> None:
    record_sensor(instance, 1, on_since=NOON, name=name)
    assert ticks_reader(dev_env=True).is_on == (name in ALWAYS_ON)
    assert ticks_reader(dev_env=False).is_on


def test_unused_database_has_no_ticks(dagster_home: DagsterHome) -> None:
    engine = create_engine(dagster_home.storage_url)
    with engine.connect() as connection:
        assert read_ticks(connection, zone=EASTERN, dev_env=False, now=NOON) == []
    engine.dispose()
