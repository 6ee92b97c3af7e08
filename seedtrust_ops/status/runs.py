"""Reads the status of jobs, schedules, sensors and the run queue from Dagster's tables with plain SQL.

Importing Dagster takes seconds, and `seedtrust-ops status` must respond at once.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, text

from seedtrust_ops.dagster_db.daemon_activity import ALWAYS_ON, AutomationTicks, read_heartbeats, read_ticks
from seedtrust_ops.job_policies import JOB_POLICIES
from seedtrust_ops.status.models import DagsterStatus, JobStatus, RunCount

SENSOR_BY_JOB = {"process_huntington_batch": "huntington_batch_sensor", "rule_based_approval": "pending_dr_sensor"}
"""The sensor of each job that has no schedule; a schedule is named after its job (docs/rules.md, section 1)."""
EXAMPLE_JOBS = frozenset({"example", "example_error", "example_progress", "example_with_args"})
"""Jobs that exist only if DEV_ENV=1."""
MANUAL_JOBS = EXAMPLE_JOBS | {"explain_transfer", "requeue_failed_payments", "settle_transfer"}
"""Jobs without a schedule or sensor."""

# Dagster stores these columns in UTC, without a time zone.
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
_RUN_COUNTS = text(
    """
    select pipeline_name as job, count(*) as runs,
           extract(epoch from min(create_timestamp) at time zone 'UTC') as oldest
    from runs where status = any(cast(:statuses as text[])) group by pipeline_name order by 3
    """
)


def read_dagster_status(
    connection: Connection, *, zone: ZoneInfo, dev_env: bool, now: datetime, is_in_shadow_mode: Callable[[str], bool]
) -> DagsterStatus:
    """Return the status from Dagster's database; if Dagster has never used it, no job has ever run."""
    ticks = {one.name: one for one in read_ticks(connection, zone=zone, dev_env=dev_env, now=now)}
    names = [name for name in JOB_POLICIES if dev_env or name not in EXAMPLE_JOBS]
    has_runs = connection.scalar(text("select to_regclass('runs') is not null"))
    last_runs = {row.name: row for row in connection.execute(_LAST_RUNS, {"jobs": names})} if has_runs else {}
    jobs = [
        _job_status(
            name, JOB_POLICIES[name].severity.value, automation_of(name), ticks, last_runs.get(name), dev_env, now
        )
        for name in sorted(names, key=lambda name: -JOB_POLICIES[name].severity.priority)
    ]
    sensors = [_job_status(name, None, name, ticks, None, dev_env, now) for name in sorted(ALWAYS_ON)]
    return DagsterStatus(
        heartbeats=read_heartbeats(connection),
        jobs=[replace(job, is_in_shadow_mode=is_in_shadow_mode(job.name)) for job in jobs] + sensors,
        queued=_count_runs(connection, ["QUEUED"]) if has_runs else [],
        in_progress=_count_runs(connection, ["STARTING", "STARTED", "CANCELING"]) if has_runs else [],
    )


def automation_of(job: str) -> str | None:
    """Return the name of the schedule or sensor that launches the job, or None if only people launch it."""
    return None if job in MANUAL_JOBS else SENSOR_BY_JOB.get(job, f"{job}_schedule")


def _job_status(
    name: str,
    severity: str | None,
    automation: str | None,
    ticks: dict[str, AutomationTicks],
    run: Any,
    dev_env: bool,
    now: datetime,
) -> JobStatus:
    own_ticks = ticks.get(automation or "")
    state = None
    if automation is not None:
        # A daemon writes a row for everything that is on by default. Without any row, no daemon has run yet.
        is_on = own_ticks.is_on if own_ticks is not None else not ticks and (automation in ALWAYS_ON or not dev_env)
        state = "RUNNING" if is_on else "STOPPED"
    return JobStatus(
        name=name,
        severity=severity,
        automation=automation,
        state=state,
        last_run_id=run.run_id if run else None,
        last_run_status=run.status if run else None,
        last_run_at=_parse_time(run.created) if run else None,
        last_run_seconds=_run_seconds(run, now) if run else None,
        last_tick_at=own_ticks.last_tick_at if own_ticks else None,
        last_tick_status=own_ticks.last_tick_status if own_ticks else None,
        next_tick_at=own_ticks.due_at if own_ticks else None,
        silent_at=own_ticks.silent_at if own_ticks else None,
    )


def _run_seconds(run: Any, now: datetime) -> float | None:
    if run.start_time is None:
        return None
    return float((run.end_time or now.timestamp()) - run.start_time)


def _count_runs(connection: Connection, statuses: Iterable[str]) -> list[RunCount]:
    rows = connection.execute(_RUN_COUNTS, {"statuses": list(statuses)})
    return [RunCount(row.job, row.runs, _parse_time(row.oldest)) for row in rows]


def _parse_time(seconds: Any) -> datetime:
    return datetime.fromtimestamp(float(seconds), UTC)
