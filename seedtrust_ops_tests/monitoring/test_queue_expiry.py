"""A run that waits for longer than its job allows is cancelled and does nothing; JobRun tells it from a revoked one."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.execution.api import execute_run_iterator
from dagster._core.storage.runs.schema import RunsTable
from sqlalchemy import create_engine, update
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.job_policies import EXPIRES_TAG, JOB_POLICIES, queue_tags
from seedtrust_ops.monitoring import queue_expiry
from seedtrust_ops.monitoring.queue_expiry import cancel_expired_runs
from seedtrust_ops.orchestration.expiration_tags import EXPIRED_TAG, mark_expired
from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops.orchestration.user_facing_failures import RETRIES
from seedtrust_ops.severity import Severity
from seedtrust_ops_tests.monitoring.sample_runs import SOME_JOB, STATUS, becomes, look, new_run, queued_run, rows
from seedtrust_ops_tests.monitoring.sample_runs import row as job_run
from seedtrust_ops_tests.support.dagster_homes import DagsterHome

Age = Callable[[str, float], None]


@pytest.fixture
def age(dagster_home: DagsterHome) -> Age:
    """Lets a run have been made so many seconds ago."""
    engine = create_engine(dagster_home.storage_url)

    def make_older(run_id: str, seconds: float) -> None:
        made = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=seconds)
        with engine.begin() as connection:
            connection.execute(update(RunsTable).where(RunsTable.c.run_id == run_id).values(create_timestamp=made))

    return make_older


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def test_runs_are_cancelled_when_they_waited_longer_than_their_job_allows_and_no_others(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session], age: Age
) -> None:
    long = timedelta(days=10).total_seconds()
    stays = {queued_run(instance, job_name="process_huntington_batch"): long, queued_run(instance): long}
    goes = {}
    # By the tag that the job gives its runs, and by the job's name where the tag is missing or senseless.
    for name, tags in (("report_generation", queue_tags("report_generation")), ("off_site_tracking", {})):
        allowed = JOB_POLICIES[name].expires_after
        assert allowed is not None
        goes[queued_run(instance, job_name=name, tags=tags)] = allowed.total_seconds() + 30
        goes[queued_run(instance, job_name=name, tags={EXPIRES_TAG: "soon"})] = allowed.total_seconds() + 30
        stays[queued_run(instance, job_name=name, tags=tags)] = allowed.total_seconds() - 60
    started = new_run(instance, job_name="off_site_tracking")
    becomes(instance, started, STATUS.STARTING)
    stays[started] = long
    for run_id, seconds in (stays | goes).items():
        age(run_id, seconds)
    assert cancel_expired_runs(instance) == len(goes)
    assert cancel_expired_runs(instance) == 0
    assert {status(instance, run_id) for run_id in goes} == {STATUS.CANCELED}
    assert STATUS.CANCELED not in {status(instance, run_id) for run_id in stays}
    look(instance)
    assert rows(sessions) == dict.fromkeys(goes, "EXPIRED") | dict.fromkeys(stays, "PENDING")
    said = job_run(sessions, next(iter(goes))).error
    assert said is not None
    assert "longer than its job allows" in said


def test_many_are_cancelled_in_bounded_steps_behind_any_number_that_may_wait(
    instance: dg.DagsterInstance, age: Age, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_expiry, "RUNS_A_PAGE", 2)
    monkeypatch.setattr(queue_expiry, "CANCELLED_A_TICK", 3)
    may_wait = [queued_run(instance, job_name="process_huntington_batch") for _ in range(5)]
    expired = [queued_run(instance, tags={EXPIRES_TAG: "1"}) for _ in range(4)]
    for run_id in (*may_wait, *expired):
        age(run_id, 60)
    assert [cancel_expired_runs(instance) for _ in range(3)] == [3, 1, 0]


def test_a_tick_that_dies_between_the_mark_and_the_cancellation_is_made_up_for(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session], age: Age, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = queued_run(instance, tags={EXPIRES_TAG: "1"})
    age(run_id, 60)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(dg.DagsterInstance, "report_run_canceling", die)
        with pytest.raises(KeyboardInterrupt):
            cancel_expired_runs(instance)
    look(instance)
    assert rows(sessions) == {run_id: "PENDING"}
    assert cancel_expired_runs(instance) == 1
    look(instance)
    assert rows(sessions) == {run_id: "EXPIRED"}


def test_a_run_that_leaves_the_queue_at_that_moment_is_not_touched(
    instance: dg.DagsterInstance, age: Age, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = queued_run(instance, tags={EXPIRES_TAG: "1"})
    age(run_id, 60)

    def left_meanwhile(of: dg.DagsterInstance, run: dg.DagsterRun) -> None:
        mark_expired(of, run)
        becomes(of, run.run_id, STATUS.STARTING)

    monkeypatch.setattr(queue_expiry, "mark_expired", left_meanwhile)
    assert cancel_expired_runs(instance) == 0
    assert status(instance, run_id) is STATUS.STARTING


def test_what_a_person_cancels_is_revoked_even_where_it_was_launched_again_from_an_expired_run(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    revoked, again = queued_run(instance), queued_run(instance, tags={EXPIRED_TAG: "the run that it repeats"})
    for run_id in (revoked, again):
        instance.run_coordinator.cancel_run(run_id)
    look(instance)
    assert rows(sessions) == {revoked: "REVOKED", again: "REVOKED"}


@pytest.mark.parametrize(
    ("waited", "allowed", "becomes_status"),
    [(90, "60", "EXPIRED"), (30, "60", "COMPLETED"), (90, None, "COMPLETED"), (None, "60", "COMPLETED")],
)
def test_a_run_that_left_the_queue_too_late_does_nothing(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    age: Age,
    waited: float | None,
    allowed: str | None,
    becomes_status: str,
) -> None:
    worked: list[str] = []

    @dg.op(retry_policy=RETRIES)
    def work() -> None:
        worked.append("once")

    job = single_op_job(work, Severity.LOW, legacy_name="none")
    tags = dict(job.tags) | ({EXPIRES_TAG: allowed} if allowed else {})
    run = instance.create_run_for_job(job, tags=tags, remote_job_origin=SOME_JOB)
    # It was made long ago in any case, and has been starting since it left the queue.
    age(run.run_id, 1000)
    if waited is not None:
        made = datetime.now(UTC).timestamp() - 1000
        for kind, moment in ((DagsterEventType.PIPELINE_ENQUEUED, 0.0), (DagsterEventType.PIPELINE_STARTING, waited)):
            event = DagsterEvent(kind.value, run.job_name)
            instance.report_dagster_event(event, run_id=run.run_id, timestamp=made + moment)
    starting = instance.get_run_by_id(run.run_id)
    assert starting is not None
    list(execute_run_iterator(InMemoryJob(job), starting, instance))
    look(instance)
    assert rows(sessions) == {run.run_id: becomes_status}
    assert worked == ([] if becomes_status == "EXPIRED" else ["once"])
