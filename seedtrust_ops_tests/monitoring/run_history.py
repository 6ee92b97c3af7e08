"""A long history of runs in Dagster's storage: a few real runs, copied by the thousand in the database itself.

Each copy has an id and times of its own; what JobRun must say of it is known from what it is a copy of.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
from sqlalchemy import Engine, text

from seedtrust_ops.errors import SeedTrustError, TransientError
from seedtrust_ops.orchestration.expiration_tags import mark_expired
from seedtrust_ops.orchestration.io_manager import returned_values
from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops.orchestration.metadata import PROGRESS_TAG
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures
from seedtrust_ops.severity import Severity
from seedtrust_ops_tests.monitoring.sample_runs import STATUS, becomes, new_run

NAMESPACE = uuid.UUID("5d1c6c1e-7a0b-4c56-9d6e-0f9f6a3f2b11")
RUNS_OF_ONE_TIME = 1_700
TOO_LONG = "longer than its job allows, and was cancelled. It did nothing."
SENTENCE = "The sun stands too high. Wait for the evening."


class TooBright(SeedTrustError):
    """The sun stands too high."""


@dg.op(name="shining", retry_policy=RETRIES)
def shining_op(context: dg.OpExecutionContext) -> dict[str, Any]:
    """Work at the second try."""
    with user_facing_failures():
        if context.retry_number == 0:
            raise TransientError("A cloud is in the way.")
    return {"suns": 1}


@dg.op(name="too_bright", retry_policy=RETRIES)
def too_bright_op() -> None:
    """Fail for good."""
    with user_facing_failures():
        raise TooBright(SENTENCE)


@dataclass(frozen=True)
class Kind:
    """A run to copy, and what JobRun must say of each copy: status, result, error and retries."""

    run_id: str
    status: str
    result: Any = None
    error: str | None = None
    retries: int = 0


@dataclass(frozen=True)
class Copy:
    """One run of the history."""

    run_id: str
    kind: Kind
    changed_at: datetime


def real_runs(instance: dg.DagsterInstance) -> list[Kind]:
    """One run of each kind, made as in production: run to its end, failed, cancelled, expired, waiting, under way."""
    done, failed = (_executed(instance, op) for op in (shining_op, too_bright_op))
    again = _executed(instance, shining_op, tags={"dagster/parent_run_id": failed, "dagster/root_run_id": failed})
    waiting, under_way, revoked, expired = (new_run(instance) for _ in range(4))
    becomes(instance, waiting, STATUS.QUEUED)
    becomes(instance, under_way, STATUS.STARTED)
    instance.add_run_tags(under_way, {PROGRESS_TAG: "3 of 10"})
    becomes(instance, revoked, STATUS.CANCELED)
    marked = instance.get_run_by_id(expired)
    assert marked is not None
    mark_expired(instance, marked)
    becomes(instance, expired, STATUS.CANCELED)
    return [
        Kind(done, "COMPLETED", result={"suns": 1}, retries=1),
        Kind(again, "COMPLETED", result={"suns": 1}, retries=1),
        Kind(failed, "ERROR", error=SENTENCE),
        Kind(waiting, "PENDING"),
        Kind(under_way, "STARTED", result={"progress": {"done": 3, "total": 10}}),
        Kind(revoked, "REVOKED"),
        Kind(expired, "EXPIRED", error=f"The run waited 1:00:00 in the queue, {TOO_LONG}"),
    ]


def _executed(instance: dg.DagsterInstance, op: dg.OpDefinition, tags: dict[str, str] | None = None) -> str:
    job = single_op_job(op, Severity.LOW, legacy_name="none")
    resolved = dg.Definitions(jobs=[job], resources={"io_manager": returned_values}).resolve_job_def(op.name)
    return resolved.execute_in_process(instance=instance, raise_on_error=False, tags=tags).run_id


def copies(kinds: Sequence[Kind], runs: int, changed_at: Callable[[int], datetime]) -> list[Copy]:
    """Which runs a history of `runs` runs has: all kinds in turn, each changed when `changed_at` says of its number."""
    return [
        Copy(str(uuid.uuid5(NAMESPACE, str(number))), kinds[number % len(kinds)], changed_at(number))
        for number in range(runs)
    ]


def in_lumps(start: datetime) -> Callable[[int], datetime]:
    """Thousands of runs at one and the same time, and the lumps a second apart."""
    return lambda number: start + timedelta(seconds=number // RUNS_OF_ONE_TIME)


def write(storage: Engine, history: Sequence[Copy], *, as_started: bool = False) -> None:
    """Write the runs of a history with their events; `as_started` leaves those that ended as they were before.

    A run that is there already becomes what the history says.
    """
    parameters = {
        "copies": [copy.run_id for copy in history],
        "originals": [copy.kind.run_id for copy in history],
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
