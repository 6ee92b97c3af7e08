"""A run queued longer than its job's limit is canceled without doing work; JobRun shows it as EXPIRED, not REVOKED."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.execution.api import execute_run_iterator
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.job_policies import JOB_POLICIES, Group, JobPolicy
from seedtrust_ops.orchestration import queue_expiration
from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops.orchestration.queue_expiration import cancel_expired_runs, mark_expired
from seedtrust_ops.severity import Severity
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

LONG_AGO = timedelta(days=10).total_seconds()


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def test_only_runs_queued_beyond_their_limit_are_canceled(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session], dagster_home: DagsterHome
) -> None:
    kept = {queued_run(instance, job_name="process_huntington_batch"): LONG_AGO, queued_run(instance): LONG_AGO}
    canceled = {}
    # The limit is the job's, whatever the run's tag says.
    for name in ("report_generation", "off_site_tracking"):
        limit = JOB_POLICIES[name].expires_after
        assert limit is not None
        for tags in ({}, {EXPIRES_TAG: "1"}, {EXPIRES_TAG: "1000000"}):
            canceled[queued_run(instance, job_name=name, tags=tags)] = limit.total_seconds() + 30
            kept[queued_run(instance, job_name=name, tags=tags)] = limit.total_seconds() - 60
    started = new_run(instance, job_name="off_site_tracking")
    set_status(instance, started, STATUS.STARTING)
    kept[started] = LONG_AGO
    for run_id, seconds in (kept | canceled).items():
        dagster_home.backdate_run(run_id, seconds)
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
    instance: dg.DagsterInstance, dagster_home: DagsterHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_expiration, "RUNS_PER_PAGE", 2)
    monkeypatch.setattr(queue_expiration, "MAX_CANCELED_PER_TICK", 3)
    without_limit = [queued_run(instance, job_name="process_huntington_batch") for _ in range(5)]
    expired = [queued_run(instance, job_name="off_site_tracking") for _ in range(4)]
    for run_id in (*without_limit, *expired):
        dagster_home.backdate_run(run_id, LONG_AGO)
    assert [cancel_expired_runs(instance) for _ in range(3)] == [3, 1, 0]


def test_tick_crash_between_tag_and_cancellation_is_recovered(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    dagster_home: DagsterHome,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_id = queued_run(instance, job_name="off_site_tracking")
    dagster_home.backdate_run(run_id, LONG_AGO)

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
    instance: dg.DagsterInstance, dagster_home: DagsterHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = queued_run(instance, job_name="off_site_tracking")
    dagster_home.backdate_run(run_id, LONG_AGO)

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
    [(90, 60, "EXPIRED"), (30, 60, "COMPLETED"), (90, None, "COMPLETED"), (None, 60, "COMPLETED")],
)
def test_run_that_left_the_queue_too_late_does_no_work(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    dagster_home: DagsterHome,
    monkeypatch: pytest.MonkeyPatch,
    waited: float | None,
    limit: int | None,
    expected_status: str,
) -> None:
    executions: list[str] = []

    @single_op_job(kind="python", shadow=None)
    def work(_context: dg.OpExecutionContext) -> None:
        executions.append("once")

    expires_after = None if limit is None else timedelta(seconds=limit)
    monkeypatch.setitem(JOB_POLICIES, "work", JobPolicy(Severity.LOW, Group.HEALTH, expires_after))
    run = instance.create_run_for_job(work, tags=dict(work.tags), remote_job_origin=SOME_JOB)
    # It was created long ago in any case, and has been starting since it left the queue.
    dagster_home.backdate_run(run.run_id, 1000)
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
