"""Health of the jobs' runs: runs that fail, expire or wait too long, read from JobRun, and ticks that launched none.

Revoked runs are not counted, nor failures that a person caused by what they gave a run. Jobs that only people launch,
and stopped schedules and sensors, are not watched. The tick data is read in `monitoring/health_rules`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Integer, Row, Text, exists, func, or_, select, true
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.job_failures import INPUT_ERROR
from seedtrust_ops.domain.sql_arrays import array_table
from seedtrust_ops.domain.sql_ranges import seconds_between
from seedtrust_ops.formatting import format_duration, single_line
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import ErrorRecord, JobRun
from seedtrust_ops.tables.user_text import cut_text

ERROR_SPIKE = "error_spike"
EXPIRED_RUNS = "expired_runs"
PENDING_ACCUMULATING = "pending_accumulating"
SCHEDULE_MISSED = "schedule_missed"

RUNS_EXAMINED_PER_JOB = 200
"""This many of a job's last runs, by queue time, are sorted by the time they ended."""
ONE_DAY = timedelta(days=1)
MAX_SENTENCE_CHARS = 500


@dataclass(frozen=True)
class WatchedJob:
    """A job, the severity of its alerts, and how many consecutive runs must fail or expire before one opens."""

    name: str
    severity: Severity
    consecutive_limit: int


def error_spike(
    session: Session, jobs: Sequence[WatchedJob], *, window_seconds: float, window_limit: int
) -> list[Finding]:
    """Find jobs whose last runs failed, and whether `window_limit` or more runs of all jobs failed in the window.

    If one failure is enough for a job, it counts for the whole window, even if later runs succeeded.
    """
    found = [
        Finding(
            ERROR_SPIKE,
            f"job {row.job}",
            Severity(row.severity),
            f"{_last_runs(row, 'failed')} {_sentence(row.error)} Look it up in docs/runbook.md; the run is "
            f"{row.run_id}.",
        )
        for row in _unsuccessful_jobs(session, jobs, "ERROR", window_seconds)
    ]
    number = _in_window(session, jobs, "ERROR", window_seconds)
    if number >= window_limit:
        found.append(
            Finding(
                ERROR_SPIKE,
                "all jobs",
                Severity.HIGH,
                f"{number} runs failed in the last {format_duration(window_seconds)}. Check the failed runs in the "
                "Dagster UI: many at once usually have one cause, such as the database, the network or a new release.",
            )
        )
    return found


def expired_runs(
    session: Session, jobs: Sequence[WatchedJob], *, window_seconds: float, window_limit: int
) -> list[Finding]:
    """Find jobs whose last runs expired in the queue, and whether `window_limit` or more did so in the window."""
    found = [
        Finding(
            EXPIRED_RUNS,
            f"job {row.job}",
            Severity(row.severity),
            f"{_last_runs(row, 'expired in the queue')} No work was done. Run `seedtrust-ops status` to see what "
            "blocks the queue; if the work is urgent, launch the job manually.",
        )
        for row in _unsuccessful_jobs(session, jobs, "EXPIRED", window_seconds)
    ]
    number = _in_window(session, jobs, "EXPIRED", window_seconds)
    if number >= window_limit:
        found.append(
            Finding(
                EXPIRED_RUNS,
                "all jobs",
                Severity.HIGH,
                f"{number} runs expired in the queue in the last {format_duration(window_seconds)}. Run `seedtrust-ops "
                "status` to see whether the worker is running and which runs occupy the slots.",
            )
        )
    return found


def pending_accumulating(session: Session, *, max_pending: int, max_wait_seconds: float) -> list[Finding]:
    """Find whether more than `max_pending` runs are queued, or one has waited for more than `max_wait_seconds`."""
    number, seconds = session.execute(
        select(func.count(), func.coalesce(seconds_between(func.min(JobRun.queued_at), func.now()), 0)).where(
            JobRun.status == "PENDING"
        )
    ).one()
    if number <= max_pending and seconds <= max_wait_seconds:
        return []
    return [
        Finding(
            PENDING_ACCUMULATING,
            "queue",
            Severity.HIGH,
            f"{number} run{' is' if number == 1 else 's are'} queued, the oldest for "
            f"{format_duration(float(seconds))}. Run `seedtrust-ops status` to see whether the worker is running and "
            "which runs occupy the slots; cancel stuck runs in the Dagster UI.",
        )
    ]


def _unsuccessful_jobs(
    session: Session, jobs: Sequence[WatchedJob], status: str, window_seconds: float
) -> Sequence[Row[*tuple[Any, ...]]]:
    """Return the jobs with enough consecutive runs of `status`, in one statement that reads few rows per job."""
    watched = array_table(
        "watched",
        [("job", Text()), ("severity", Text()), ("consecutive_limit", Integer())],
        [(job.name, job.severity.value, job.consecutive_limit) for job in jobs],
    )
    ended_at = func.coalesce(JobRun.finished_at, JobRun.updated_at)
    last_queued = (
        select(JobRun.run_id, JobRun.status, cut_text(JobRun.error).label("error"), ended_at.label("ended_at"))
        .where(JobRun.task_name == watched.c.job, JobRun.status.in_(("COMPLETED", status)), ~_is_input_error())
        .order_by(JobRun.queued_at.desc())
        .limit(RUNS_EXAMINED_PER_JOB)
        .correlate(watched)
        .subquery()
    )
    last = select(
        last_queued.c.run_id,
        last_queued.c.error,
        last_queued.c.ended_at,
        (last_queued.c.status == status).label("is_match"),
        func.row_number().over(order_by=last_queued.c.ended_at.desc()).label("recency"),
    ).lateral("last")
    recent_matches = func.count().filter(last.c.is_match, last.c.recency <= watched.c.consecutive_limit)
    last_match_at = func.max(last.c.ended_at).filter(last.c.is_match)
    run_ids, errors = (
        func.array_agg(aggregate_order_by(column, last.c.recency)).filter(last.c.is_match)
        for column in (last.c.run_id, last.c.error)
    )
    return session.execute(
        select(
            watched.c.job,
            watched.c.severity,
            watched.c.consecutive_limit,
            run_ids[1].label("run_id"),
            errors[1].label("error"),
        )
        .select_from(watched)
        .join(last, true())
        .group_by(watched.c.job, watched.c.severity, watched.c.consecutive_limit)
        .having(
            or_(
                recent_matches == watched.c.consecutive_limit,
                (watched.c.consecutive_limit == 1) & (last_match_at > func.now() - timedelta(seconds=window_seconds)),
            )
        )
        .order_by(watched.c.job)
    ).all()


def _is_input_error() -> ColumnElement[bool]:
    return exists(
        select(ErrorRecord.id).where(ErrorRecord.job_run_id == JobRun.id, ErrorRecord.context.has_key(INPUT_ERROR))
    )


def _sentence(error: str | None) -> str:
    """Return the run's own sentence on one line; those of unexpected errors contain no data."""
    return single_line(error or "Its error is not recorded yet.", MAX_SENTENCE_CHARS)


def _last_runs(row: Row[*tuple[Any, ...]], outcome: str) -> str:
    if row.consecutive_limit == 1:
        return f"A run of {row.job} {outcome}."
    return f"The last {row.consecutive_limit} runs of {row.job} {outcome}."


def _in_window(session: Session, jobs: Sequence[WatchedJob], status: str, window_seconds: float) -> int:
    since = func.now() - timedelta(seconds=window_seconds)
    return session.execute(
        select(func.count()).where(
            JobRun.status == status,
            ~_is_input_error(),
            JobRun.task_name.in_([job.name for job in jobs]),
            # The index is on queued_at; runs that waited or ran for over a day are not a spike.
            JobRun.queued_at > since - ONE_DAY,
            func.coalesce(JobRun.finished_at, JobRun.updated_at) > since,
        )
    ).scalar_one()


@dataclass(frozen=True)
class Automation:
    """A running schedule or sensor: `due_at` (aware) is when the tick after its last successful one was due, and
    `severity` is the severity of the jobs that it launches."""

    name: str
    severity: Severity
    due_at: datetime
    last_tick_error: str | None = None
    """The status of its newest tick if that was not successful."""


def schedule_missed(
    automations: Sequence[Automation], *, now: datetime, daemon_up_since: datetime, missed_seconds: float
) -> list[Finding]:
    """Find schedules and sensors whose tick has been due for more than `missed_seconds`.

    `daemon_up_since` is when the daemon last came back: ticks that were due before that get as long to catch up.
    """
    found = []
    for automation in automations:
        overdue = now - max(automation.due_at, daemon_up_since)
        if overdue <= timedelta(seconds=missed_seconds):
            continue
        last_tick = f" Its newest tick: {automation.last_tick_error}." if automation.last_tick_error else ""
        found.append(
            Finding(
                SCHEDULE_MISSED,
                automation.name,
                automation.severity,
                f"{automation.name} has missed a tick that was due "
                f"{format_duration((now - automation.due_at).total_seconds())} ago.{last_tick} Check its ticks in the "
                "Dagster UI. If there are none, restart the worker. Launch urgent jobs manually.",
            )
        )
    return found
