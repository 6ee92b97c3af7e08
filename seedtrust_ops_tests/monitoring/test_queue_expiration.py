"""A run queued longer than its job's limit is canceled without doing work; JobRun shows it as EXPIRED, not REVOKED."""

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

from seedtrust_ops.job_policies import JOB_POLICIES, queue_tags
from seedtrust_ops.monitoring import queue_expiration
from seedtrust_ops.monitoring.queue_expiration import cancel_expired_runs
from seedtrust_ops.orchestration.expiration_tags import mark_expired
from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops.tag_names import EXPIRED_TAG, EXPIRES_TAG
from seedtrust_ops_tests.monitoring.sample_runs import (
    SOME_JOB,
    STATUS,
    mirror_runs,
    new_run,
    queued_run,
    rows,
    set_status,
)
from seedtrust_ops_tests.monitoring.sample_runs import row as job_run
from seedtrust_ops_tests.support.dagster_homes import DagsterHome

BackdateRun = Callable[[str, float], None]


@pytest.fixture
def backdate_run(dagster_home: DagsterHome) -> BackdateRun:
    """Backdates the creation of a run by a number of seconds."""
    engine = create_engine(dagster_home.storage_url)

    def backdate(run_id: str, seconds: float) -> None:
        created = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=seconds)
        with engine.begin() as connection:
            connection.execute(update(RunsTable).where(RunsTable.c.run_id == run_id).values(create_timestamp=created))

    return backdate


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def test_only_runs_queued_beyond_their_limit_are_canceled(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session], backdate_run: BackdateRun
) -> None:
    ten_days = timedelta(days=10).total_seconds()
    kept = {queued_run(instance, job_name="process_huntington_batch"): ten_days, queued_run(instance): ten_days}
    canceled = {}
    # The limit is in the tag that the job gives its runs, or is the job's if the tag is missing or invalid.
    for name, tags in (("report_generation", queue_tags("report_generation")), ("off_site_tracking", {})):
        limit = JOB_POLICIES[name].expires_after
        assert limit is not None
        canceled[queued_run(instance, job_name=name, tags=tags)] = limit.total_seconds() + 30
        canceled[queued_run(instance, job_name=name, tags={EXPIRES_TAG: "soon"})] = limit.total_seconds() + 30
        kept[queued_run(instance, job_name=name, tags=tags)] = limit.total_seconds() - 60
    started = new_run(instance, job_name="off_site_tracking")
    set_status(instance, started, STATUS.STARTING)
    kept[started] = ten_days
    for run_id, seconds in (kept | canceled).items():
        backdate_run(run_id, seconds)
    assert cancel_expired_runs(instance) == len(canceled)
    assert cancel_expired_runs(instance) == 0
    assert {status(instance, run_id) for run_id in canceled} == {STATUS.CANCELED}
    assert STATUS.CANCELED not in {status(instance, run_id) for run_id in kept}
    mirror_runs(instance)
    assert rows(sessions) == dict.fromkeys(canceled, "EXPIRED") | dict.fromkeys(kept, "PENDING")
    error = job_run(sessions, next(iter(canceled))).error
    assert error is not None
    assert "longer than this job's limit" in error


def test_many_expired_runs_are_canceled_over_several_ticks(
    instance: dg.DagsterInstance, backdate_run: BackdateRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_expiration, "RUNS_PER_PAGE", 2)
    monkeypatch.setattr(queue_expiration, "MAX_CANCELED_PER_TICK", 3)
    without_limit = [queued_run(instance, job_name="process_huntington_batch") for _ in range(5)]
    expired = [queued_run(instance, tags={EXPIRES_TAG: "1"}) for _ in range(4)]
    for run_id in (*without_limit, *expired):
        backdate_run(run_id, 60)
    assert [cancel_expired_runs(instance) for _ in range(3)] == [3, 1, 0]


def test_tick_crash_between_tag_and_cancellation_is_recovered(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    backdate_run: BackdateRun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_id = queued_run(instance, tags={EXPIRES_TAG: "1"})
    backdate_run(run_id, 60)

    def crash(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(dg.DagsterInstance, "report_run_canceling", crash)
        with pytest.raises(KeyboardInterrupt):
            cancel_expired_runs(instance)
    mirror_runs(instance)
    assert rows(sessions) == {run_id: "PENDING"}
    assert cancel_expired_runs(instance) == 1
    mirror_runs(instance)
    assert rows(sessions) == {run_id: "EXPIRED"}


def test_run_that_leaves_the_queue_meanwhile_is_not_canceled(
    instance: dg.DagsterInstance, backdate_run: BackdateRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = queued_run(instance, tags={EXPIRES_TAG: "1"})
    backdate_run(run_id, 60)

    def mark_after_start(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
        mark_expired(instance, run)
        set_status(instance, run.run_id, STATUS.STARTING)

    monkeypatch.setattr(queue_expiration, "mark_expired", mark_after_start)
    assert cancel_expired_runs(instance) == 0
    assert status(instance, run_id) is STATUS.STARTING


def test_run_canceled_by_a_person_is_revoked_even_if_parent_expired(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    revoked, reexecuted = queued_run(instance), queued_run(instance, tags={EXPIRED_TAG: "the parent run"})
    for run_id in (revoked, reexecuted):
        instance.run_coordinator.cancel_run(run_id)
    mirror_runs(instance)
    assert rows(sessions) == {revoked: "REVOKED", reexecuted: "REVOKED"}


@pytest.mark.parametrize(
    ("waited", "limit", "expected_status"),
    [(90, "60", "EXPIRED"), (30, "60", "COMPLETED"), (90, None, "COMPLETED"), (None, "60", "COMPLETED")],
)
def test_run_that_left_the_queue_too_late_does_no_work(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    backdate_run: BackdateRun,
    waited: float | None,
    limit: str | None,
    expected_status: str,
) -> None:
    executions: list[str] = []

    @single_op_job(kind="python", shadow=None)
    def work(_context: dg.OpExecutionContext) -> None:
        executions.append("once")

    tags = dict(work.tags) | ({EXPIRES_TAG: limit} if limit else {})
    run = instance.create_run_for_job(work, tags=tags, remote_job_origin=SOME_JOB)
    # It was created long ago in any case, and has been starting since it left the queue.
    backdate_run(run.run_id, 1000)
    if waited is not None:
        created = datetime.now(UTC).timestamp() - 1000
        for kind, offset in ((DagsterEventType.PIPELINE_ENQUEUED, 0.0), (DagsterEventType.PIPELINE_STARTING, waited)):
            event = DagsterEvent(kind.value, run.job_name)
            instance.report_dagster_event(event, run_id=run.run_id, timestamp=created + offset)
    starting = instance.get_run_by_id(run.run_id)
    assert starting is not None
    list(execute_run_iterator(InMemoryJob(work), starting, instance))
    mirror_runs(instance)
    assert rows(sessions) == {run.run_id: expected_status}
    assert executions == ([] if expected_status == "EXPIRED" else ["once"])
