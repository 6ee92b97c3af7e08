"""JobRun mirrors every Dagster run, whoever launched it: read from a real instance on PostgreSQL.

Runs are made and moved on by Dagster's own events, some of them stored late or at equal times.
"""

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.test_utils import create_run_for_test, in_process_test_workspace
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.job_runs import RESOLUTIONS, RunFact, mirror_runs
from seedtrust_ops.jobs.process_huntington_batch import NAME
from seedtrust_ops.monitoring import job_run_sensor as mirror
from seedtrust_ops.monitoring.job_run_sensor import fact_of, job_run_sensor, mirror_changed_runs
from seedtrust_ops.resources.database import DatabaseResource
from seedtrust_ops.tables import JobRun
from seedtrust_ops_tests.dagster_homes import DagsterHome, instance_of

STATUS = dg.DagsterRunStatus
EVENTS = {
    STATUS.QUEUED: DagsterEventType.PIPELINE_ENQUEUED,
    STATUS.STARTING: DagsterEventType.PIPELINE_STARTING,
    STATUS.STARTED: DagsterEventType.PIPELINE_START,
    STATUS.CANCELING: DagsterEventType.PIPELINE_CANCELING,
    STATUS.SUCCESS: DagsterEventType.PIPELINE_SUCCESS,
    STATUS.FAILURE: DagsterEventType.PIPELINE_FAILURE,
    STATUS.CANCELED: DagsterEventType.PIPELINE_CANCELED,
}
CODE = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="seedtrust_ops.definitions"))
SOME_JOB = RemoteJobOrigin(RemoteRepositoryOrigin(CODE, "__repository__"), "some_job")
MOMENT = datetime(2024, 3, 1, 12, tzinfo=UTC)


def new_run(instance: dg.DagsterInstance, **changes: Any) -> str:
    """A run that was made and not started."""
    return create_run_for_test(instance, **({"job_name": "some_job", "remote_job_origin": SOME_JOB} | changes)).run_id


def queued_run(instance: dg.DagsterInstance) -> str:
    run_id = new_run(instance)
    becomes(instance, run_id, STATUS.QUEUED)
    return run_id


def becomes(instance: dg.DagsterInstance, run_id: str, status: dg.DagsterRunStatus, at: datetime | None = None) -> None:
    """Move the run on, by the event that moves it in production, which happened `at`."""
    event = DagsterEvent(EVENTS[status].value, "some_job", message=status.value)
    instance.run_storage.handle_run_event(run_id, event, update_timestamp=at)


def look(instance: dg.DagsterInstance, cursor: datetime | None = None) -> tuple[int, datetime | None]:
    return mirror_changed_runs(instance, DatabaseResource(), cursor)


def row(sessions: sessionmaker[Session], run_id: str) -> JobRun:
    with sessions() as session:
        return session.scalars(select(JobRun).where(JobRun.run_id == run_id)).one()


def rows(sessions: sessionmaker[Session]) -> dict[str, str]:
    with sessions() as session:
        return dict(session.execute(select(JobRun.run_id, JobRun.status)).tuples().all())


def test_every_status_of_a_run_has_its_word(instance: dg.DagsterInstance, sessions: sessionmaker[Session]) -> None:
    wanted = {
        STATUS.NOT_STARTED: ("PENDING", None),
        STATUS.MANAGED: ("PENDING", None),
        STATUS.QUEUED: ("PENDING", None),
        STATUS.STARTING: ("PENDING", None),
        STATUS.STARTED: ("STARTED", None),
        STATUS.SUSPENDED: ("STARTED", None),
        STATUS.CANCELING: ("STARTED", None),
        STATUS.SUCCESS: ("COMPLETED", "COMPLETED"),
        STATUS.FAILURE: ("ERROR", "ERROR"),
        STATUS.CANCELED: ("REVOKED", "REVOKED"),
    }
    assert set(wanted) == set(STATUS)
    made_so = {STATUS.MANAGED, STATUS.SUSPENDED}
    runs = {status: new_run(instance, **({"status": status} if status in made_so else {})) for status in STATUS}
    for status in EVENTS:
        becomes(instance, runs[status], status)
    assert look(instance)[0] == len(runs)
    mirrored = {status: row(sessions, run_id) for status, run_id in runs.items()}
    assert {status: (one.status, one.resolution) for status, one in mirrored.items()} == wanted


def test_a_run_is_followed_from_the_queue_to_its_end_with_its_times_in_utc(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    before = datetime.now(UTC)
    run_id = queued_run(instance)
    _, cursor = look(instance)
    queued = row(sessions, run_id)
    assert (queued.status, queued.started_at, queued.finished_at) == ("PENDING", None, None)
    started, finished = datetime.now(UTC) + timedelta(seconds=1), datetime.now(UTC) + timedelta(seconds=3)
    becomes(instance, run_id, STATUS.STARTED, started)
    _, cursor = look(instance, cursor)
    assert row(sessions, run_id).status == "STARTED"
    becomes(instance, run_id, STATUS.SUCCESS, finished)
    look(instance, cursor)
    done = row(sessions, run_id)
    assert (done.status, done.resolution) == ("COMPLETED", "COMPLETED")
    assert before <= done.queued_at <= datetime.now(UTC)
    assert (done.started_at, done.finished_at) == (started, finished)
    assert queued.queued_at == done.queued_at


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kathmandu"])
def test_times_are_right_where_the_database_server_s_clock_shows_another_zone(
    dagster_home: DagsterHome, bank_environment: dict[str, str], sessions: sessionmaker[Session], zone: str
) -> None:
    engine = create_engine(dagster_home.storage_url)
    with engine.begin() as connection:
        connection.execute(text(f"alter database {dagster_home.storage_url.database} set timezone to '{zone}'"))
    engine.dispose()
    with instance_of(dagster_home) as instance:
        before = datetime.now(UTC)
        run_id = queued_run(instance)
        becomes(instance, run_id, STATUS.STARTED)
        assert look(instance, datetime.now(UTC))[0] == 1
        (record,) = instance.get_run_records()
    done = row(sessions, run_id)
    assert done.started_at is not None
    assert before <= done.queued_at <= done.started_at <= datetime.now(UTC)
    assert before <= record.update_timestamp <= datetime.now(UTC)


def test_reading_again_changes_nothing(instance: dg.DagsterInstance, sessions: sessionmaker[Session]) -> None:
    runs = [new_run(instance) for _ in range(3)]
    becomes(instance, runs[0], STATUS.STARTED)
    becomes(instance, runs[1], STATUS.SUCCESS)
    changed, cursor = look(instance)
    before = [row(sessions, run_id).updated_at for run_id in runs]
    assert changed == 3
    assert [look(instance, cursor)[0], look(instance, None)[0]] == [0, 0]
    assert [row(sessions, run_id).updated_at for run_id in runs] == before


def test_a_status_never_goes_back_and_an_end_stays_the_end(sessions: sessionmaker[Session]) -> None:
    steps = ["PENDING", "STARTED", *RESOLUTIONS]
    pairs = [(was, late) for was in steps[1:] for late in steps if steps.index(late) < 2 or was in RESOLUTIONS]

    def fact(pair: tuple[str, str], status: str, minute: int) -> RunFact:
        moment = MOMENT + timedelta(minutes=minute)
        ended = moment if status in RESOLUTIONS else None
        return RunFact(f"{pair[0]} then {pair[1]}", "some_job", status, {}, 0, MOMENT, moment, ended)

    with sessions.begin() as session:
        assert mirror_runs(session, [fact(pair, pair[0], 1) for pair in pairs]) == len(pairs)
    with sessions.begin() as session:
        assert mirror_runs(session, [fact(pair, pair[1], 2) for pair in pairs]) == 0
    assert rows(sessions) == {f"{was} then {late}": was for was, late in pairs}
    done = row(sessions, "COMPLETED then STARTED")
    assert (done.resolution, done.finished_at) == ("COMPLETED", MOMENT + timedelta(minutes=1))


def test_of_two_facts_about_one_run_in_one_reading_the_later_state_counts(sessions: sessionmaker[Session]) -> None:
    def fact(status: str) -> RunFact:
        return RunFact("run-1", "some_job", status, {}, 0, MOMENT, None, None)

    with sessions.begin() as session:
        mirror_runs(session, [fact("COMPLETED"), fact("PENDING"), fact("STARTED")])
    assert row(sessions, "run-1").status == "COMPLETED"
    with sessions.begin() as session:
        assert mirror_runs(session, []) == 0


@pytest.mark.parametrize("cursor", [None, MOMENT, MOMENT + timedelta(days=1), MOMENT - timedelta(days=4000)])
def test_from_any_cursor_nothing_that_changed_after_it_is_missed(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session], cursor: datetime | None
) -> None:
    at = {hours: new_run(instance) for hours in (0, 12, 24, 36)}
    for hours, run_id in at.items():
        becomes(instance, run_id, STATUS.SUCCESS, MOMENT + timedelta(hours=hours))
    _, reached = look(instance, cursor)
    wanted = {run for hours, run in at.items() if cursor is None or MOMENT + timedelta(hours=hours) >= cursor}
    assert wanted <= set(rows(sessions))
    assert reached == MOMENT + timedelta(hours=36)


def test_a_change_that_is_stored_a_little_late_behind_a_newer_one_is_not_missed(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    now = datetime.now(UTC)
    early, late = new_run(instance), new_run(instance)
    becomes(instance, late, STATUS.SUCCESS, now)
    becomes(instance, early, STATUS.SUCCESS, now - mirror.OVERLAP / 2)
    look(instance, now)
    assert rows(sessions) == {early: "COMPLETED", late: "COMPLETED"}


def test_a_run_that_ends_by_a_clock_far_behind_the_cursor_is_not_left_open(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    run_id = new_run(instance)
    becomes(instance, run_id, STATUS.STARTED)
    _, cursor = look(instance)
    assert rows(sessions) == {run_id: "STARTED"}
    becomes(instance, run_id, STATUS.FAILURE, MOMENT)
    assert look(instance, cursor) == (1, cursor)
    assert rows(sessions) == {run_id: "ERROR"}
    assert look(instance, cursor) == (0, cursor)


def test_a_run_that_was_deleted_from_dagster_stays_as_it_was_last_seen(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    run_id = new_run(instance)
    look(instance)
    instance.delete_run(run_id)
    assert look(instance, datetime.now(UTC))[0] == 0
    assert rows(sessions) == {run_id: "PENDING"}


@pytest.mark.parametrize(("equal", "page"), [(7, 3), (9, 3), (30, 3), (5, 1)])
def test_more_runs_of_one_and_the_same_time_than_a_page_holds_are_all_mirrored(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    monkeypatch: pytest.MonkeyPatch,
    equal: int,
    page: int,
) -> None:
    monkeypatch.setattr(mirror, "RECORDS_A_PAGE", page)
    runs = [new_run(instance) for _ in range(equal + 4)]
    for number, run_id in enumerate(runs):
        moment = MOMENT + timedelta(seconds=0 if number < 2 else 60 if number < equal + 2 else 120)
        becomes(instance, run_id, STATUS.SUCCESS, moment)
    _, cursor = look(instance)
    assert set(rows(sessions)) == set(runs)
    assert cursor == MOMENT + timedelta(seconds=120)


def test_what_one_tick_can_t_read_the_next_ones_do(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "RECORDS_A_PAGE", 2)
    monkeypatch.setattr(mirror, "PAGES_A_TICK", 2)
    runs = [new_run(instance) for _ in range(9)]
    for number, run_id in enumerate(runs):
        becomes(instance, run_id, STATUS.SUCCESS, MOMENT + timedelta(minutes=number))
    cursor, ticks = None, 0
    while len(rows(sessions)) < len(runs):
        reached = look(instance, cursor)[1]
        assert reached is not None
        assert cursor is None or reached > cursor
        cursor, ticks = reached, ticks + 1
    assert ticks > 1


def test_a_submitted_run_is_pending_and_a_launched_one_ends_as_what_it_became(
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
    look(instance)
    queued = row(sessions, run.run_id)
    assert (queued.task_name, queued.status, queued.priority) == (NAME, "PENDING", 3007)
    assert queued.arguments == {"batch_id": 4711}

    from seedtrust_ops.definitions import definitions

    executed = definitions.resolve_job_def(NAME).execute_in_process(
        run_config=config, instance=instance, raise_on_error=False
    )
    look(instance)
    failed = row(sessions, executed.run_id)
    assert (failed.task_name, failed.status, failed.arguments) == (NAME, "ERROR", {"batch_id": 4711})
    assert failed.started_at is not None
    assert failed.finished_at is not None
    assert failed.queued_at <= failed.started_at <= failed.finished_at


ARGUMENTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"ops": {"a": {"config": {"batch_id": 7}}}}, {"batch_id": 7}),
    ({"ops": {"a": {}}}, {}),
    ({"ops": {"a": None}}, {}),
    ({"ops": None}, {"ops": None}),
    ({"ops": {"a": {"config": None}}}, {}),
    ({"ops": {"a": {"config": 7}}}, {"config": 7}),
    ({"ops": {"a": {"config": [1, 2]}}}, {"config": [1, 2]}),
    ({"ops": {"a": {"config": {"note": "a\x00b"}}}}, {"note": "a�b"}),
    ({"ops": {"a": {"config": {"share": math.inf}}}}, {"share": "inf"}),
    (
        {"ops": {"a": {"config": {"x": 1}}, "b": {"config": {"y": 2}}}},
        {"ops": {"a": {"config": {"x": 1}}, "b": {"config": {"y": 2}}}},
    ),
    ({"resources": {"r": {"config": 1}}}, {"resources": {"r": {"config": 1}}}),
]


def test_arguments_are_the_config_of_the_one_op_and_odd_ones_stop_nothing(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    runs = [(new_run(instance, run_config=run_config), arguments) for run_config, arguments in ARGUMENTS]
    look(instance)
    assert [row(sessions, run_id).arguments for run_id, _ in runs] == [arguments for _, arguments in runs]


PRIORITIES = [
    (None, 0),
    ("3000", 3000),
    ("-5", -5),
    ("high", 0),
    ("", 0),
    ("99999999999999", 2**31 - 1),
    ("-" + "9" * 30, -(2**31)),
]


def test_priority_is_the_tag_s_and_an_odd_one_stops_nothing(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    runs = [
        (new_run(instance, tags={} if tag is None else {"dagster/priority": tag}), priority)
        for tag, priority in PRIORITIES
    ]
    look(instance)
    assert [row(sessions, run_id).priority for run_id, _ in runs] == [priority for _, priority in runs]


def test_a_fact_says_what_the_record_says(instance: dg.DagsterInstance) -> None:
    run_id = new_run(instance)
    (record,) = instance.get_run_records()
    fact = fact_of(record)
    assert isinstance(record.dagster_run, DagsterRun)
    assert (fact.run_id, fact.task_name, fact.queued_at) == (run_id, "some_job", record.create_timestamp)


def evaluate(instance: dg.DagsterInstance, cursor: str | None) -> tuple[str, str | None]:
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"database": DatabaseResource()})
    skip = job_run_sensor(context)
    assert isinstance(skip, dg.SkipReason)
    return str(skip.skip_message), context.cursor


@pytest.mark.parametrize(
    "cursor", [None, "", "yesterday", "2024-03-01", "0001-01-01T00:00:00+14:00", json.dumps({"a": 1})]
)
def test_the_sensor_keeps_its_place_and_one_that_can_t_be_read_means_from_the_start(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session], cursor: str | None
) -> None:
    run_id = new_run(instance)
    becomes(instance, run_id, STATUS.SUCCESS, MOMENT + timedelta(days=2))
    said, place = evaluate(instance, cursor)
    assert said.startswith("1 rows of JobRun are new or changed")
    assert rows(sessions) == {run_id: "COMPLETED"}
    assert place == (MOMENT + timedelta(days=2)).isoformat()
    assert evaluate(instance, place)[0].startswith("0 rows")


def test_the_sensor_never_launches_anything_and_always_starts_running() -> None:
    assert job_run_sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert job_run_sensor.targets == []


def test_with_no_run_at_all_the_cursor_stays(instance: dg.DagsterInstance) -> None:
    assert look(instance) == (0, None)
    assert look(instance, MOMENT) == (0, MOMENT)
