"""Computes the figures of a week of operations by day, in the office's time zone, from the platform's tables.

Runs are counted from JobRun, so that Dagster's run history can be purged. This module only reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Date, Select, cast, func, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.reports.request_queue import EMAILED, FAILED
from seedtrust_ops.domain.sql_ranges import local_time, seconds_between
from seedtrust_ops.tables import Alert, DisbursementRequest, JobRun, LedgerEntry, ReportRequest

DAYS = 7
MAX_JOBS_SHOWN = 30


@dataclass(frozen=True)
class DailyFigures:
    """One day: runs by outcome, approvals, money paid and returned in cents, reports and waiting times in seconds."""

    day: date
    runs: int = 0
    failed: int = 0
    not_executed: int = 0
    """Runs that expired in the queue or were revoked."""
    approvals: int = 0
    approved_cents: int = 0
    moved_cents: int = 0
    returned_cents: int = 0
    reports: int = 0
    reports_failed: int = 0
    median_wait_seconds: float = 0.0
    """Median time from a report request to its end."""
    max_wait_seconds: float = 0.0


@dataclass(frozen=True)
class JobFigures:
    """The runs of one job; `max_seconds` is the duration of its longest finished run."""

    name: str
    runs: int
    failed: int
    not_executed: int
    max_seconds: float


@dataclass(frozen=True)
class WeeklyFigures:
    """Seven days from `first`, the jobs that had runs (most failures first), and the alerts opened by rule."""

    first: date
    days: Sequence[DailyFigures]
    jobs: Sequence[JobFigures]
    alerts: dict[str, int] = field(default_factory=dict)

    def total(self, name: str) -> int:
        """Return the sum of a field of `DailyFigures` over the days."""
        return sum(getattr(day, name) for day in self.days)

    @property
    def max_wait_seconds(self) -> float:
        """The longest wait for a report in the week."""
        return max(day.max_wait_seconds for day in self.days)


def load_week(session: Session, first: date, zone: str) -> WeeklyFigures:
    """Return the figures of seven days from `first` in time zone `zone`; a day without work has zeros."""
    days = {day: DailyFigures(day) for day in (first + timedelta(days=number) for number in range(DAYS))}
    for moment, figures in _FIGURES:
        day = _day_of(moment, zone)
        for row in session.execute(figures.add_columns(day.label("day")).where(_within(day, first)).group_by(day)):
            counted: dict[str, Any] = {
                name: float(value) if name.endswith("_seconds") else int(value)
                for name, value in row._mapping.items()
                if name != "day"
            }
            days[row.day] = replace(days[row.day], **counted)
    return WeeklyFigures(first, list(days.values()), _jobs(session, first, zone), _alerts(session, first, zone))


def _day_of(moment: Any, zone: str) -> ColumnElement[date]:
    return cast(local_time(moment, zone), Date)


def _within(day: ColumnElement[date], first: date) -> ColumnElement[bool]:
    return day.between(first, first + timedelta(days=DAYS - 1))


def _cents(column: Any, condition: ColumnElement[bool]) -> ColumnElement[Any]:
    return func.coalesce(func.sum(column).filter(condition), 0)


_WAIT_SECONDS = seconds_between(ReportRequest.requested_at, ReportRequest.finished_at)
_NOT_EXECUTED = JobRun.status.in_(("EXPIRED", "REVOKED"))

_FIGURES: list[tuple[Any, Select[*tuple[Any, ...]]]] = [
    (
        JobRun.queued_at,
        select(
            func.count().label("runs"),
            func.count().filter(JobRun.status == "ERROR").label("failed"),
            func.count().filter(_NOT_EXECUTED).label("not_executed"),
        ),
    ),
    (
        DisbursementRequest.approved_at,
        select(
            func.count().label("approvals"), func.sum(DisbursementRequest.amount_cents).label("approved_cents")
        ).where(DisbursementRequest.status.in_(("approved", "paid"))),
    ),
    (
        LedgerEntry.posted_at,
        select(
            _cents(-LedgerEntry.amount_cents, LedgerEntry.kind == "disbursement").label("moved_cents"),
            _cents(LedgerEntry.amount_cents, LedgerEntry.kind == "reversal").label("returned_cents"),
        ),
    ),
    (
        ReportRequest.finished_at,
        select(
            func.count().filter(ReportRequest.status == EMAILED).label("reports"),
            func.count().filter(ReportRequest.status == FAILED).label("reports_failed"),
            func.percentile_cont(0.5).within_group(_WAIT_SECONDS).label("median_wait_seconds"),
            func.max(_WAIT_SECONDS).label("max_wait_seconds"),
        ),
    ),
]
"""The timestamp that assigns a row to a day, and the figures counted from it, named as in `DailyFigures`."""


def _jobs(session: Session, first: date, zone: str) -> list[JobFigures]:
    failed = func.count().filter(JobRun.status == "ERROR")
    seconds = seconds_between(JobRun.started_at, JobRun.finished_at)
    rows = session.execute(
        select(
            JobRun.task_name,
            func.count(),
            failed,
            func.count().filter(_NOT_EXECUTED),
            func.coalesce(func.max(seconds), 0),
        )
        .where(_within(_day_of(JobRun.queued_at, zone), first))
        .group_by(JobRun.task_name)
        .order_by(failed.desc(), func.count().desc(), JobRun.task_name)
        .limit(MAX_JOBS_SHOWN)
    )
    return [JobFigures(row[0], row[1], row[2], row[3], float(row[4])) for row in rows]


def _alerts(session: Session, first: date, zone: str) -> dict[str, int]:
    rows = session.execute(
        select(Alert.rule, func.count())
        .where(_within(_day_of(Alert.opened_at, zone), first))
        .group_by(Alert.rule)
        .order_by(func.count().desc(), Alert.rule)
    )
    return {row.rule: row[1] for row in rows}
