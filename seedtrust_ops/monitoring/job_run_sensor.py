"""Mirrors every Dagster run into JobRun, whoever launched it, by paging run records in the order of their changes.

Not Dagster's run-status sensors: they read a few events a tick and fall behind in silence (dagster issues
19224 and 14779). The cursor is a time; each tick starts a little before it and looks again at every run whose
end was not seen, and the upsert is idempotent.
"""

from datetime import UTC, datetime, timedelta
from functools import partial
from math import isfinite
from typing import Any

import dagster as dg
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.committing import commit
from seedtrust_ops.domain.job_runs import RunFact, mirror_runs, unfinished_runs
from seedtrust_ops.jobs.conventions import failures_for_people
from seedtrust_ops.resources.database import DatabaseResource

OVERLAP = timedelta(seconds=30)
"""A run's update time is when the event happened; it may be stored a little later, behind a newer one's."""
RECORDS_A_PAGE = 500
PAGES_A_TICK = 40

STATUS = {
    dg.DagsterRunStatus.NOT_STARTED: "PENDING",
    dg.DagsterRunStatus.QUEUED: "PENDING",
    dg.DagsterRunStatus.MANAGED: "PENDING",
    dg.DagsterRunStatus.STARTING: "PENDING",
    dg.DagsterRunStatus.STARTED: "STARTED",
    dg.DagsterRunStatus.SUSPENDED: "STARTED",
    dg.DagsterRunStatus.CANCELING: "STARTED",
    dg.DagsterRunStatus.SUCCESS: "COMPLETED",
    dg.DagsterRunStatus.FAILURE: "ERROR",
    dg.DagsterRunStatus.CANCELED: "REVOKED",
}


@dg.sensor(
    name="job_run_sensor",
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Keeps JobRun, which every dashboard of the company reads, equal to Dagster's runs.",
)
def job_run_sensor(context: dg.SensorEvaluationContext, database: DatabaseResource) -> dg.SkipReason:
    """Mirror the runs that changed since the last tick."""
    with failures_for_people():
        changed, cursor = mirror_changed_runs(context.instance, database, _read_cursor(context.cursor))
    if cursor is not None:
        context.update_cursor(cursor.isoformat())
    return dg.SkipReason(f"{changed} rows of JobRun are new or changed; this sensor never launches a run.")


def mirror_changed_runs(
    instance: dg.DagsterInstance, database: DatabaseResource, cursor: datetime | None
) -> tuple[int, datetime | None]:
    """Mirror the runs that changed since `cursor` (UTC; None: all), oldest change first, in bounded pages.

    Returns:
        How many rows are new or changed, and the update time up to which all is mirrored.
    """
    sessions = database.sessions()
    changed = 0
    updated_after = cursor - OVERLAP if cursor is not None else None
    limit = RECORDS_A_PAGE
    for _ in range(PAGES_A_TICK):
        records = instance.get_run_records(
            filters=dg.RunsFilter(updated_after=updated_after),
            limit=limit,
            order_by="update_timestamp",
            ascending=True,
        )
        facts = [fact_of(record) for record in records]
        changed += commit(sessions, partial(mirror_runs, facts=facts))
        if not records:
            break
        newest = records[-1].update_timestamp
        cursor = max(cursor, newest) if cursor is not None else newest
        if len(records) < limit:
            break
        if updated_after == newest - timedelta(microseconds=1):
            # A whole page of one and the same time: only a larger page gets past it.
            limit *= 2
        # `updated_after` leaves its own time out, and other runs may bear the last one's time.
        updated_after = newest - timedelta(microseconds=1)
    return changed + _mirror_unfinished(instance, sessions), cursor


def _mirror_unfinished(instance: dg.DagsterInstance, sessions: sessionmaker[Session]) -> int:
    """Look again at the runs whose end JobRun has not seen.

    An event bears the clock of the machine where it happened: one whose clock is behind, or that stored the
    event late, leaves a run that changed before the cursor.
    """
    with sessions() as session:
        run_ids = unfinished_runs(session, limit=RECORDS_A_PAGE)
    if not run_ids:
        return 0
    facts = [fact_of(record) for record in instance.get_run_records(dg.RunsFilter(run_ids=run_ids))]
    return commit(sessions, partial(mirror_runs, facts=facts))


def fact_of(record: dg.RunRecord) -> RunFact:
    """Return what a run record says, in JobRun's words."""
    run = record.dagster_run
    return RunFact(
        run_id=run.run_id,
        task_name=run.job_name,
        status=STATUS[run.status],
        arguments=_arguments(run.run_config),
        priority=_whole_number(run.tags.get("dagster/priority")),
        queued_at=record.create_timestamp,
        started_at=_time(record.start_time),
        finished_at=_time(record.end_time),
    )


def _arguments(run_config: Any) -> dict[str, Any]:
    """Return a run's arguments: the config of its one op, or the run config as it is where it has several."""
    ops = run_config.get("ops") if isinstance(run_config, dict) else None
    if isinstance(ops, dict) and len(ops) == 1:
        (op,) = ops.values()
        arguments = op.get("config") if isinstance(op, dict) else op
    else:
        arguments = run_config
    plain = _storable(arguments or {})
    return plain if isinstance(plain, dict) else {"config": plain}


def _storable(value: Any) -> Any:
    """Return `value` as PostgreSQL's jsonb takes it: one run with odd arguments must not stop the mirror of all."""
    if isinstance(value, dict):
        return {str(_storable(str(name))): _storable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(one) for one in value]
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value).replace("\0", "\N{REPLACEMENT CHARACTER}")


def _whole_number(text: str | None) -> int:
    """Return the number in a tag that anybody may write, within PostgreSQL's integer; 0 where it is none."""
    try:
        number = int(text or 0)
    except ValueError:
        return 0
    return max(-(2**31), min(number, 2**31 - 1))


def _time(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None


def _read_cursor(text: str | None) -> datetime | None:
    """Return the cursor's time; one that can't be read (people may edit it) means to mirror all runs again."""
    try:
        return datetime.fromisoformat(text or "").astimezone(UTC)
    except (ValueError, OverflowError):
        return None
