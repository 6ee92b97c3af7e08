"""JobRun mirrors every Dagster run, however it was launched; the tests read a real instance on PostgreSQL.

Runs change by Dagster's own events, some of them stored late or at equal times, and no cursor or page size misses one.
"""

import json
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test, in_process_test_workspace
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.jobs.process_huntington_batch import NAME
from seedtrust_ops.monitoring import job_run_sensor as mirror
from seedtrust_ops.monitoring.job_run_sensor import job_run_sensor
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops_tests.monitoring.sample_runs import (
    BASE_TIME,
    STATUS,
    mirror_runs,
    new_run,
    queued_run,
    row,
    rows,
    set_status,
)
from seedtrust_ops_tests.support.dagster_homes import DagsterHome, open_instance


def test_run_is_mirrored_from_queue_to_end_with_times_in_utc(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    before = datetime.now(UTC)
    run_id = queued_run(instance)
    _, cursor = mirror_runs(instance)
    queued = row(sessions, run_id)
    assert (queued.status, queued.started_at, queued.finished_at) == ("PENDING", None, None)
    started, finished = datetime.now(UTC) + timedelta(seconds=1), datetime.now(UTC) + timedelta(seconds=3)
    set_status(instance, run_id, STATUS.STARTED, started)
    _, cursor = mirror_runs(instance, cursor)
    assert row(sessions, run_id).status == "STARTED"
    set_status(instance, run_id, STATUS.SUCCESS, finished)
    mirror_runs(instance, cursor)
    done = row(sessions, run_id)
    assert (done.status, done.resolution) == ("COMPLETED", "COMPLETED")
    assert before <= done.queued_at <= datetime.now(UTC)
    assert (done.started_at, done.finished_at) == (started, finished)
    assert queued.queued_at == done.queued_at


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kathmandu"])
def test_times_are_correct_if_the_database_has_another_time_zone(
    dagster_home: DagsterHome, bank_environment: dict[str, str], sessions: sessionmaker[Session], zone: str
) -> None:
    engine = create_engine(dagster_home.storage_url)
    with engine.begin() as connection:
        connection.execute(text(f"alter database {dagster_home.storage_url.database} set timezone to '{zone}'"))
    engine.dispose()
    with open_instance(dagster_home) as instance:
        before = datetime.now(UTC)
        run_id = queued_run(instance)
        set_status(instance, run_id, STATUS.STARTED)
        assert mirror_runs(instance, datetime.now(UTC))[0] == 1
        (record,) = instance.get_run_records()
    done = row(sessions, run_id)
    assert done.started_at is not None
    assert before <= done.queued_at <= done.started_at <= datetime.now(UTC)
    assert before <= record.update_timestamp <= datetime.now(UTC)


def test_run_deleted_from_dagster_keeps_its_last_row(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    run_id = new_run(instance)
    mirror_runs(instance)
    instance.delete_run(run_id)
    assert mirror_runs(instance, datetime.now(UTC))[0] == 0
    assert rows(sessions) == {run_id: "PENDING"}


def test_submitted_run_is_pending_and_executed_run_has_its_outcome(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    config = {"ops": {NAME: {"config": {"batch_id": 4711}}}}
    target = LoadableTargetOrigin(module_name="seedtrust_ops.definitions")
    with in_process_test_workspace(instance, target) as workspace:
        (location,) = workspace.code_locations
        job = location.get_repository("__repository__").get_full_job(NAME)
        run = create_run_for_test(
            instance,
            job_name=NAME,
            run_config=config,
            tags={"dagster/priority": "3007"},
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
        )
        instance.submit_run(run.run_id, workspace)
    mirror_runs(instance)
    queued = row(sessions, run.run_id)
    assert (queued.task_name, queued.status, queued.priority) == (NAME, "PENDING", 3007)
    assert queued.arguments == {"batch_id": 4711}

    from seedtrust_ops.definitions import defs

    executed = defs.resolve_job_def(NAME).execute_in_process(run_config=config, instance=instance, raise_on_error=False)
    mirror_runs(instance)
    failed = row(sessions, executed.run_id)
    assert (failed.task_name, failed.status, failed.arguments) == (NAME, "ERROR", {"batch_id": 4711})
    assert failed.started_at is not None
    assert failed.finished_at is not None
    assert failed.queued_at <= failed.started_at <= failed.finished_at


def evaluate(instance: dg.DagsterInstance, cursor: str | None) -> tuple[str, str | None]:
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"database": DatabaseResource()})
    skip = job_run_sensor(context)
    assert isinstance(skip, dg.SkipReason)
    return str(skip.skip_message), context.cursor


@pytest.mark.parametrize(
    "cursor", [None, "", "yesterday", "2024-03-01", "0001-01-01T00:00:00+14:00", json.dumps({"a": 1})]
)
def test_sensor_keeps_its_cursor_and_restarts_if_it_is_invalid(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session], cursor: str | None
) -> None:
    run_id = new_run(instance)
    set_status(instance, run_id, STATUS.SUCCESS, BASE_TIME + timedelta(days=2))
    message, new_cursor = evaluate(instance, cursor)
    assert message.startswith("JobRun rows added or updated: 1.")
    assert rows(sessions) == {run_id: "COMPLETED"}
    assert new_cursor == (BASE_TIME + timedelta(days=2)).isoformat()
    assert evaluate(instance, new_cursor)[0].startswith("JobRun rows added or updated: 0.")


def test_sensor_runs_by_default_and_launches_nothing() -> None:
    assert job_run_sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert job_run_sensor.targets == []


@pytest.mark.parametrize("cursor", [None, BASE_TIME, BASE_TIME + timedelta(days=1), BASE_TIME - timedelta(days=4000)])
def test_cursor_misses_no_run_that_changed_after_it(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session], cursor: datetime | None
) -> None:
    at = {hours: new_run(instance) for hours in (0, 12, 24, 36)}
    for hours, run_id in at.items():
        set_status(instance, run_id, STATUS.SUCCESS, BASE_TIME + timedelta(hours=hours))
    _, reached = mirror_runs(instance, cursor)
    expected = {run for hours, run in at.items() if cursor is None or BASE_TIME + timedelta(hours=hours) >= cursor}
    assert expected <= set(rows(sessions))
    assert reached == BASE_TIME + timedelta(hours=36)


def test_change_stored_slightly_late_is_not_missed(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    now = datetime.now(UTC)
    early, late = new_run(instance), new_run(instance)
    set_status(instance, late, STATUS.SUCCESS, now)
    set_status(instance, early, STATUS.SUCCESS, now - mirror.OVERLAP / 2)
    mirror_runs(instance, now)
    assert rows(sessions) == {early: "COMPLETED", late: "COMPLETED"}


def test_run_that_ends_by_a_slow_clock_is_not_left_unfinished(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    run_id = new_run(instance)
    set_status(instance, run_id, STATUS.STARTED)
    _, cursor = mirror_runs(instance)
    assert rows(sessions) == {run_id: "STARTED"}
    set_status(instance, run_id, STATUS.FAILURE, BASE_TIME)
    assert mirror_runs(instance, cursor) == (1, cursor)
    assert rows(sessions) == {run_id: "ERROR"}
    assert mirror_runs(instance, cursor) == (0, cursor)


@pytest.mark.parametrize(("equal", "page"), [(7, 3), (9, 3), (30, 3), (5, 1)])
def test_runs_with_equal_times_beyond_a_page_are_all_mirrored(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    monkeypatch: pytest.MonkeyPatch,
    equal: int,
    page: int,
) -> None:
    monkeypatch.setattr(mirror, "RECORDS_PER_PAGE", page)
    runs = [new_run(instance) for _ in range(equal + 4)]
    for number, run_id in enumerate(runs):
        changed_at = BASE_TIME + timedelta(seconds=0 if number < 2 else 60 if number < equal + 2 else 120)
        set_status(instance, run_id, STATUS.SUCCESS, changed_at)
    _, cursor = mirror_runs(instance)
    assert set(rows(sessions)) == set(runs)
    assert cursor == BASE_TIME + timedelta(seconds=120)


def test_runs_beyond_one_tick_are_mirrored_by_the_next_ticks(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "RECORDS_PER_PAGE", 2)
    monkeypatch.setattr(mirror, "MAX_TICK_SECONDS", 0)
    runs = [new_run(instance) for _ in range(9)]
    for number, run_id in enumerate(runs):
        set_status(instance, run_id, STATUS.SUCCESS, BASE_TIME + timedelta(minutes=number))
    cursor, ticks = None, 0
    while len(rows(sessions)) < len(runs):
        reached = mirror_runs(instance, cursor)[1]
        assert reached is not None
        assert cursor is None or reached > cursor
        cursor, ticks = reached, ticks + 1
    assert ticks > 1


def test_cursor_stays_if_there_is_no_run(instance: dg.DagsterInstance) -> None:
    assert mirror_runs(instance) == (0, None)
    assert mirror_runs(instance, BASE_TIME) == (0, BASE_TIME)


def test_second_mirroring_changes_nothing(instance: dg.DagsterInstance, sessions: sessionmaker[Session]) -> None:
    runs = [new_run(instance) for _ in range(3)]
    set_status(instance, runs[0], STATUS.STARTED)
    set_status(instance, runs[1], STATUS.SUCCESS)
    changed, cursor = mirror_runs(instance)
    before = [row(sessions, run_id).updated_at for run_id in runs]
    assert changed == 3
    assert [mirror_runs(instance, cursor)[0], mirror_runs(instance, None)[0]] == [0, 0]
    assert [row(sessions, run_id).updated_at for run_id in runs] == before
