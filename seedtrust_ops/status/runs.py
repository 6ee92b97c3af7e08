"""Reads from Dagster's own tables how jobs, their schedules and sensors, and the run queue stand; by plain SQL.

Dagster's own ways of reading need seconds to load, and a status must be there at once.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, text

from seedtrust_ops.dagster_db.heartbeats import read_heartbeats
from seedtrust_ops.dagster_db.ticks import ALWAYS_ON, Ticking, read_ticks
from seedtrust_ops.job_policies import JOB_POLICIES
from seedtrust_ops.status.models import DagsterStanding, JobStanding, QueueStanding

SENSOR_OF = {"process_huntington_batch": "huntington_batch_sensor", "rule_based_approval": "pending_dr_sensor"}
"""What launches a job where that is no schedule; a schedule bears its job's name (design, section 1)."""
BY_HAND = frozenset({"example", "example_error", "example_progress", "example_with_args"})
"""Jobs that nothing launches by itself; they exist where DEV_ENV=1."""

# Dagster keeps these columns without a zone, in UTC.
_LAST_RUNS = text(
    """
    select job.name, run.run_id, run.status, run.start_time, run.end_time,
           extract(epoch from run.create_timestamp at time zone 'UTC') as created
    from unnest(cast(:jobs as text[])) as job (name)
    join lateral (
        select * from runs where runs.pipeline_name = job.name order by runs.id desc limit 1
    ) run on true
    """
)
_QUEUE = text(
    """
    select pipeline_name as job, count(*) as runs,
           extract(epoch from min(create_timestamp) at time zone 'UTC') as oldest
    from runs where status = any(cast(:statuses as text[])) group by pipeline_name order by 3
    """
)


def read_runs(
    connection: Connection, *, zone: ZoneInfo, dev_env: bool, now: datetime, in_shadow: Callable[[str], bool]
) -> DagsterStanding:
    """Return what Dagster's database knows; where no Dagster ever used it, that no job ever ran."""
    ticks = {one.name: one for one in read_ticks(connection, zone=zone, dev_env=dev_env, now=now)}
    names = [name for name in JOB_POLICIES if dev_env or name not in BY_HAND]
    has_runs = connection.scalar(text("select to_regclass('runs') is not null"))
    last = {row.name: row for row in connection.execute(_LAST_RUNS, {"jobs": names})} if has_runs else {}
    jobs = [
        _standing(name, JOB_POLICIES[name].severity.value, automation_of(name), ticks, last.get(name), dev_env, now)
        for name in sorted(names, key=lambda name: -JOB_POLICIES[name].severity.priority)
    ]
    sensors = [_standing(name, None, name, ticks, None, dev_env, now) for name in sorted(ALWAYS_ON)]
    return DagsterStanding(
        heartbeats=read_heartbeats(connection),
        jobs=[replace(job, in_shadow=in_shadow(job.name)) for job in jobs] + sensors,
        queued=_queue(connection, ["QUEUED"]) if has_runs else [],
        under_way=_queue(connection, ["STARTING", "STARTED", "CANCELING"]) if has_runs else [],
    )


def automation_of(job: str) -> str | None:
    """Return the name of the schedule or sensor that launches the job, None where people do."""
    return None if job in BY_HAND else SENSOR_OF.get(job, f"{job}_schedule")


def _standing(
    name: str,
    severity: str | None,
    automation: str | None,
    ticks: dict[str, Ticking],
    run: Any,
    dev_env: bool,
    now: datetime,
) -> JobStanding:
    ticking = ticks.get(automation or "")
    state = None
    if automation is not None:
        # What no daemon has looked at yet, or what its code declares stopped, has no row.
        is_on = ticking.is_on if ticking is not None else automation in ALWAYS_ON or not dev_env
        state = "RUNNING" if is_on else "STOPPED"
    return JobStanding(
        name=name,
        severity=severity,
        automation=automation,
        state=state,
        last_run_id=run.run_id if run else None,
        last_run_status=run.status if run else None,
        last_run_at=_time(run.created) if run else None,
        last_run_seconds=_seconds(run, now) if run else None,
        last_tick_at=ticking.last_tick_at if ticking else None,
        last_tick_status=ticking.last_tick_status if ticking else None,
        next_tick_at=ticking.due_at if ticking else None,
        silent_at=ticking.silent_at if ticking else None,
    )


def _seconds(run: Any, now: datetime) -> float | None:
    if run.start_time is None:
        return None
    return float((run.end_time or now.timestamp()) - run.start_time)


def _queue(connection: Connection, statuses: Iterable[str]) -> list[QueueStanding]:
    rows = connection.execute(_QUEUE, {"statuses": list(statuses)})
    return [QueueStanding(row.job, row.runs, _time(row.oldest)) for row in rows]


def _time(seconds: Any) -> datetime:
    return datetime.fromtimestamp(float(seconds), UTC)
