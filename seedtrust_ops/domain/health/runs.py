"""Health of the jobs' runs, read from JobRun: those that fail, those that expire, and those that wait too long.

A run that somebody revoked is no trouble, and jobs that only people launch are not watched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Integer, Row, Text, func, or_, select, true
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.health.rule import in_time
from seedtrust_ops.domain.sql_arrays import array_table
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import JobRun

ERROR_SPIKE = "error_spike"
EXPIRED_RUNS = "expired_runs"
PENDING_ACCUMULATING = "pending_accumulating"

LOOKED_AT = 200
"""So many of a job's last runs by their time in the queue are put into the order in which they ended."""
ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class WatchedJob:
    """A job, how bad it is when it stops, and how many of its runs must go wrong in a row before that is trouble."""

    name: str
    severity: Severity
    in_a_row: int


def error_spike(
    session: Session, jobs: Sequence[WatchedJob], *, window_seconds: float, most_in_window: int
) -> list[Finding]:
    """Find jobs whose last runs failed, and `most_in_window` failed runs or more of all jobs within the window.

    Where one failure is enough, it counts for as long as the window, whatever ended well since.
    """
    found = [
        Finding(
            ERROR_SPIKE,
            f"job {row.job}",
            Severity(row.severity),
            f"{_last_runs(row, 'failed')} Its sentence is in the Dagster UI, run {row.run_id}; the runbook says what "
            "to do about each failure.",
        )
        for row in _gone_wrong(session, jobs, "ERROR", window_seconds)
    ]
    number = _in_window(session, jobs, "ERROR", window_seconds)
    if number >= most_in_window:
        found.append(
            Finding(
                ERROR_SPIKE,
                "all jobs",
                Severity.HIGH,
                f"{number} runs failed within {in_time(window_seconds)}. See the failed runs in the Dagster UI: "
                "many at once have most often one cause, such as the database, the network or a new release.",
            )
        )
    return found


def expired_runs(
    session: Session, jobs: Sequence[WatchedJob], *, window_seconds: float, most_in_window: int
) -> list[Finding]:
    """Find jobs whose last runs expired in the queue, and `most_in_window` such runs of all jobs within the window."""
    found = [
        Finding(
            EXPIRED_RUNS,
            f"job {row.job}",
            Severity(row.severity),
            f"{_last_runs(row, 'expired in the queue')} See with `seedtrust-ops status` what holds the queue; where "
            "what it does is urgent, launch the job by hand.",
        )
        for row in _gone_wrong(session, jobs, "EXPIRED", window_seconds)
    ]
    number = _in_window(session, jobs, "EXPIRED", window_seconds)
    if number >= most_in_window:
        found.append(
            Finding(
                EXPIRED_RUNS,
                "all jobs",
                Severity.HIGH,
                f"{number} runs expired in the queue within {in_time(window_seconds)}. See with `seedtrust-ops "
                "status` whether the worker runs and which runs hold all the slots.",
            )
        )
    return found


def pending_accumulating(session: Session, *, most: int, longest_seconds: float) -> list[Finding]:
    """Find a queue that holds more than `most` runs, or one that has waited for more than `longest_seconds`."""
    number, seconds = session.execute(
        select(func.count(), func.coalesce(func.extract("epoch", func.now() - func.min(JobRun.queued_at)), 0)).where(
            JobRun.status == "PENDING"
        )
    ).one()
    if number <= most and seconds <= longest_seconds:
        return []
    return [
        Finding(
            PENDING_ACCUMULATING,
            "queue",
            Severity.HIGH,
            f"{number} runs wait in the queue, the oldest for {in_time(float(seconds))}. See with `seedtrust-ops "
            "status` whether the worker runs and which runs hold the slots; cancel in the Dagster UI what is stuck.",
        )
    ]


def _gone_wrong(
    session: Session, jobs: Sequence[WatchedJob], status: str, window_seconds: float
) -> Sequence[Row[*tuple[Any, ...]]]:
    """Return the jobs that have enough runs of `status` in a row, in one statement that reads few rows a job."""
    watched = array_table(
        "watched",
        [("job", Text()), ("severity", Text()), ("in_a_row", Integer())],
        [(job.name, job.severity.value, job.in_a_row) for job in jobs],
    )
    ended_at = func.coalesce(JobRun.finished_at, JobRun.updated_at)
    last_queued = (
        select(JobRun.run_id, JobRun.status, ended_at.label("ended_at"))
        .where(JobRun.task_name == watched.c.job, JobRun.status.in_(("COMPLETED", status)))
        .order_by(JobRun.queued_at.desc())
        .limit(LOOKED_AT)
        .correlate(watched)
        .subquery()
    )
    last = select(
        last_queued.c.run_id,
        last_queued.c.ended_at,
        (last_queued.c.status == status).label("is_wrong"),
        func.row_number().over(order_by=last_queued.c.ended_at.desc()).label("place"),
    ).lateral("last")
    wrong_among_the_last = func.count().filter(last.c.is_wrong, last.c.place <= watched.c.in_a_row)
    wrong_at = func.max(last.c.ended_at).filter(last.c.is_wrong)
    run_ids = func.array_agg(aggregate_order_by(last.c.run_id, last.c.place)).filter(last.c.is_wrong)
    return session.execute(
        select(watched.c.job, watched.c.severity, watched.c.in_a_row, run_ids[1].label("run_id"))
        .select_from(watched)
        .join(last, true())
        .group_by(watched.c.job, watched.c.severity, watched.c.in_a_row)
        .having(
            or_(
                wrong_among_the_last == watched.c.in_a_row,
                (watched.c.in_a_row == 1) & (wrong_at > func.now() - timedelta(seconds=window_seconds)),
            )
        )
        .order_by(watched.c.job)
    ).all()


def _last_runs(row: Row[*tuple[Any, ...]], what: str) -> str:
    if row.in_a_row == 1:
        return f"A run of {row.job} {what}."
    return f"The last {row.in_a_row} runs of {row.job} {what}."


def _in_window(session: Session, jobs: Sequence[WatchedJob], status: str, window_seconds: float) -> int:
    since = func.now() - timedelta(seconds=window_seconds)
    return session.execute(
        select(func.count()).where(
            JobRun.status == status,
            JobRun.task_name.in_([job.name for job in jobs]),
            # The index is by the time in the queue; what waited there or ran for over a day is no spike.
            JobRun.queued_at > since - ONE_DAY,
            func.coalesce(JobRun.finished_at, JobRun.updated_at) > since,
        )
    ).scalar_one()
