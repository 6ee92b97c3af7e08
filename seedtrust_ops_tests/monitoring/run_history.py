"""Writes a long run history to Dagster's storage: a few real runs, copied by the thousand inside the database.

Each copy has its own id and times; its expected JobRun row is known from the run that it copies.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
from sqlalchemy import Engine, text

from seedtrust_ops.errors import SeedTrustError, TransientError
from seedtrust_ops.orchestration.io_manager import in_memory_io_manager
from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops.orchestration.metadata import PROGRESS_TAG
from seedtrust_ops.orchestration.queue_expiration import mark_expired
from seedtrust_ops_tests.monitoring.sample_runs import STATUS, new_run, set_status

NAMESPACE = uuid.UUID("5d1c6c1e-7a0b-4c56-9d6e-0f9f6a3f2b11")
RUNS_PER_TIMESTAMP = 1_700
EXPIRED_DETAIL = "in the queue, longer than this job's limit, and was canceled. No work was done."
ERROR_MESSAGE = "Quota exceeded. Wait until midnight."


class QuotaExceeded(SeedTrustError):
    """The quota was exceeded."""


@single_op_job(kind="python", shadow=None)
def flaky(context: dg.OpExecutionContext) -> dict[str, Any]:
    """Succeed on the second attempt."""
    if context.retry_number == 0:
        raise TransientError("Connection lost.")
    return {"rows": 1}


@single_op_job(kind="python", shadow=None)
def failing(_context: dg.OpExecutionContext) -> None:
    """Fail permanently."""
    raise QuotaExceeded(ERROR_MESSAGE)


@dataclass(frozen=True)
class SampleRun:
    """A run to copy, and the expected JobRun columns of each copy."""

    run_id: str
    status: str
    result: Any = None
    error: str | None = None
    retries: int = 0


@dataclass(frozen=True)
class RunCopy:
    """One run of the history."""

    run_id: str
    sample: SampleRun
    changed_at: datetime


def execute_sample_runs(instance: dg.DagsterInstance) -> list[SampleRun]:
    """Create one run of each kind as in production: completed, retried, failed, pending, started, revoked, expired."""
    done, failed = (_execute(instance, job) for job in (flaky, failing))
    reexecuted = _execute(instance, flaky, tags={"dagster/parent_run_id": failed, "dagster/root_run_id": failed})
    pending, started, revoked, expired = (new_run(instance) for _ in range(4))
    set_status(instance, pending, STATUS.QUEUED)
    set_status(instance, started, STATUS.STARTED)
    instance.add_run_tags(started, {PROGRESS_TAG: "3 of 10"})
    set_status(instance, revoked, STATUS.CANCELED)
    expired_run = instance.get_run_by_id(expired)
    assert expired_run is not None
    mark_expired(instance, expired_run)
    set_status(instance, expired, STATUS.CANCELED)
    return [
        SampleRun(done, "COMPLETED", result={"rows": 1}, retries=1),
        SampleRun(reexecuted, "COMPLETED", result={"rows": 1}, retries=1),
        SampleRun(failed, "ERROR", error=ERROR_MESSAGE),
        SampleRun(pending, "PENDING"),
        SampleRun(started, "STARTED", result={"progress": {"done": 3, "total": 10}}),
        SampleRun(revoked, "REVOKED"),
        SampleRun(expired, "EXPIRED", error=f"Expired: waited 1:00:00 {EXPIRED_DETAIL}"),
    ]


def _execute(instance: dg.DagsterInstance, job: dg.JobDefinition, tags: dict[str, str] | None = None) -> str:
    resolved = dg.Definitions(jobs=[job], resources={"io_manager": in_memory_io_manager}).resolve_job_def(job.name)
    return resolved.execute_in_process(instance=instance, raise_on_error=False, tags=tags).run_id


def build_history(samples: Sequence[SampleRun], runs: int, changed_at: Callable[[int], datetime]) -> list[RunCopy]:
    """Return a history of `runs` runs that cycles through the samples; `changed_at` gives each run's update time."""
    return [
        RunCopy(str(uuid.uuid5(NAMESPACE, str(number))), samples[number % len(samples)], changed_at(number))
        for number in range(runs)
    ]


def in_bursts(start: datetime) -> Callable[[int], datetime]:
    """Return update times in bursts: thousands of runs share a time, and the bursts are a second apart."""
    return lambda number: start + timedelta(seconds=number // RUNS_PER_TIMESTAMP)


def write_history(storage: Engine, history: Sequence[RunCopy], *, as_started: bool = False) -> None:
    """Write the runs of a history with their events; `as_started` writes finished runs as still started.

    A run that exists is updated to what the history says.
    """
    parameters = {
        "copies": [copy.run_id for copy in history],
        "originals": [copy.sample.run_id for copy in history],
        "times": [copy.changed_at.replace(tzinfo=None) for copy in history],
        "as_started": as_started,
    }
    with storage.begin() as connection:
        for statement in (_RUNS, _EVENTS):
            connection.execute(text(statement), parameters)


_HISTORY = """
    from unnest(cast(:copies as text[]), cast(:originals as text[]), cast(:times as timestamp[]))
        with ordinality as history (run_id, original, changed_at, place)
"""
_RUNS = f"""
    insert into runs (run_id, snapshot_id, pipeline_name, status, run_body, create_timestamp, update_timestamp,
                      start_time, end_time)
    select history.run_id, snapshot_id, pipeline_name,
           case when ended and :as_started then 'STARTED' else status end,
           replace(run_body, original, history.run_id), changed_at - interval '1 hour', changed_at,
           extract(epoch from changed_at at time zone 'UTC') - 60,
           case when ended and not :as_started then extract(epoch from changed_at at time zone 'UTC') end
    {_HISTORY}
        join runs on runs.run_id = original
        cross join lateral (select status in ('SUCCESS', 'FAILURE', 'CANCELED')) as ending (ended)
    order by place
    on conflict (run_id) do update set
        status = excluded.status, update_timestamp = excluded.update_timestamp, end_time = excluded.end_time
"""
_EVENTS = f"""
    insert into event_logs (run_id, event, dagster_event_type, timestamp, step_key)
    select history.run_id, replace(event, original, history.run_id), dagster_event_type, timestamp, step_key
    {_HISTORY}
        join event_logs on event_logs.run_id = original
    where not exists (select from event_logs as old where old.run_id = history.run_id)
    order by place, event_logs.id
"""
