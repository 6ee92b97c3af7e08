"""Generates a week of runs and reports for a seeded company, so that screenshots show a realistic week.

No test depends on it: the runs and reports never happened.
"""

from datetime import date, datetime, time, timedelta
from random import Random
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.reports.request_queue import EMAILED
from seedtrust_ops.tables import JobRun, ReportRequest, User

OFFICE_TIMEZONE = ZoneInfo("America/New_York")
RUNS_PER_DAY = {
    "process_huntington_batch": 9,
    "auto_heal_huntington_batches": 60,
    "rule_based_approval": 40,
    "dr_auto_approval": 1,
    "report_generation": 25,
    "case_close_reminders": 1,
    "aws_status_check": 288,
    "off_site_tracking": 48,
}
WEEKEND_SHARE = 0.25
"""The share of a weekday's work on Saturday and Sunday, except for jobs with a fixed schedule."""
FIXED_SCHEDULE = ("aws_status_check", "off_site_tracking", "dr_auto_approval", "case_close_reminders")
FAILURE_RATE = 0.012
REPORTS_PER_DAY = 18


def create_sample_week(session: Session, first: date, *, seed: int = 7) -> None:
    """Add runs and reports for the seven days from `first`; the same seed gives the same rows."""
    rng = Random(seed)
    admins = list(session.scalars(select(User.id).where(User.role == "admin", User.is_active)))
    days = [first + timedelta(days=number) for number in range(7)]
    session.execute(insert(JobRun), [run for day in days for run in _runs(rng, day)])
    session.execute(insert(ReportRequest), [report for day in days for report in _reports(rng, day, admins)])


def _runs(rng: Random, day: date) -> list[dict[str, Any]]:
    runs = []
    for job, per_day in RUNS_PER_DAY.items():
        share = 1.0 if job in FIXED_SCHEDULE else rng.uniform(0.7, 1.3) * _share_of_workday(day)
        for _ in range(max(1, round(per_day * share))):
            queued_at = _time_on(rng, day)
            started_at = queued_at + timedelta(seconds=rng.uniform(0.2, 2.0))
            status = "ERROR" if rng.random() < FAILURE_RATE else "COMPLETED"
            runs.append(
                {
                    "run_id": str(UUID(int=rng.getrandbits(128), version=4)),
                    "task_name": job,
                    "status": status,
                    "resolution": status,
                    "queued_at": queued_at,
                    "started_at": started_at,
                    "finished_at": started_at + timedelta(seconds=rng.uniform(0.5, 20)),
                }
            )
    return runs


def _reports(rng: Random, day: date, admins: list[int]) -> list[dict[str, Any]]:
    reports = []
    for _ in range(round(REPORTS_PER_DAY * rng.uniform(0.7, 1.3) * _share_of_workday(day))):
        requested_at = _time_on(rng, day)
        reports.append(
            {
                "user_id": rng.choice(admins),
                "kind": "account_balances",
                "status": EMAILED,
                "requested_at": requested_at,
                "finished_at": requested_at + timedelta(seconds=rng.expovariate(1 / 35) + 4),
            }
        )
    return reports


def _share_of_workday(day: date) -> float:
    return WEEKEND_SHARE if day.weekday() >= 5 else 1.0


def _time_on(rng: Random, day: date) -> datetime:
    return datetime.combine(day, time(), OFFICE_TIMEZONE) + timedelta(seconds=rng.uniform(8 * 3600, 18 * 3600))
