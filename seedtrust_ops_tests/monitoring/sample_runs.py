"""Creates runs in Dagster's storage, changes their status by Dagster's own events, and reads JobRun rows.

A test chooses the times of the events.
"""

from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import create_run_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.monitoring.job_run_sensor import mirror_changed_runs
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.tables import JobRun

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
BASE_TIME = datetime(2024, 3, 1, 12, tzinfo=UTC)


def new_run(instance: dg.DagsterInstance, **changes: Any) -> str:
    """Create a run that is not started, and return its id."""
    return create_run_for_test(instance, **({"job_name": "some_job", "remote_job_origin": SOME_JOB} | changes)).run_id


def queued_run(instance: dg.DagsterInstance, **changes: Any) -> str:
    run_id = new_run(instance, **changes)
    set_status(instance, run_id, STATUS.QUEUED)
    return run_id


def set_status(
    instance: dg.DagsterInstance, run_id: str, status: dg.DagsterRunStatus, at: datetime | None = None
) -> None:
    """Change the run's status by the event that does so in production, at time `at`."""
    event = DagsterEvent(EVENTS[status].value, "some_job", message=status.value)
    instance.run_storage.handle_run_event(run_id, event, update_timestamp=at)


def mirror_runs(instance: dg.DagsterInstance, cursor: datetime | None = None) -> tuple[int, datetime | None]:
    return mirror_changed_runs(instance, DatabaseResource(), cursor)


def row(sessions: sessionmaker[Session], run_id: str) -> JobRun:
    with sessions() as session:
        return session.scalars(select(JobRun).where(JobRun.run_id == run_id)).one()


def rows(sessions: sessionmaker[Session]) -> dict[str, str]:
    with sessions() as session:
        return dict(session.execute(select(JobRun.run_id, JobRun.status)).tuples().all())
