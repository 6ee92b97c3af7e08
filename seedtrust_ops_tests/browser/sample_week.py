"""Makes up a week of work for a seeded company, so that a picture of it shows what a real one would.

No test stands on it: it writes history that nothing here lived through.
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

OFFICE = ZoneInfo("America/New_York")
RUNS_A_DAY = {
    "process_huntington_batch": 9,
    "auto_heal_huntington_batches": 60,
    "rule_based_approval": 40,
    "dr_auto_approval": 1,
    "report_generation": 25,
    "case_close_reminders": 1,
    "aws_status_check": 288,
    "off_site_tracking": 48,
}
WEEKEND = 0.25
"""How much of a working day's work there is on Saturday and Sunday, but for what runs by the clock."""
BY_THE_CLOCK = ("aws_status_check", "off_site_tracking", "dr_auto_approval", "case_close_reminders")
FAILED = 0.012
REPORTS_A_DAY = 18


def plant_week(session: Session, first: date, *, seed: int = 7) -> None:
    """Add runs and reports for the seven days from `first`; the same seed gives the same ones."""
    chance = Random(seed)
    admins = list(session.scalars(select(User.id).where(User.role == "admin", User.is_active)))
    days = [first + timedelta(days=number) for number in range(7)]
    session.execute(insert(JobRun), [run for day in days for run in _runs(chance, day)])
    session.execute(insert(ReportRequest), [one for day in days for one in _reports(chance, day, admins)])


def _runs(chance: Random, day: date) -> list[dict[str, Any]]:
    runs = []
    for job, usual in RUNS_A_DAY.items():
        busy = 1.0 if job in BY_THE_CLOCK else chance.uniform(0.7, 1.3) * _share_of(day)
        for _ in range(max(1, round(usual * busy))):
            queued = _moment(chance, day)
            started = queued + timedelta(seconds=chance.uniform(0.2, 2.0))
            end = "ERROR" if chance.random() < FAILED else "COMPLETED"
            runs.append(
                {
                    "run_id": str(UUID(int=chance.getrandbits(128), version=4)),
                    "task_name": job,
                    "status": end,
                    "resolution": end,
                    "queued_at": queued,
                    "started_at": started,
                    "finished_at": started + timedelta(seconds=chance.uniform(0.5, 20)),
                }
            )
    return runs


def _reports(chance: Random, day: date, admins: list[int]) -> list[dict[str, Any]]:
    reports = []
    for _ in range(round(REPORTS_A_DAY * chance.uniform(0.7, 1.3) * _share_of(day))):
        asked = _moment(chance, day)
        reports.append(
            {
                "user_id": chance.choice(admins),
                "kind": "account_balances",
                "status": EMAILED,
                "requested_at": asked,
                "finished_at": asked + timedelta(seconds=chance.expovariate(1 / 35) + 4),
            }
        )
    return reports


def _share_of(day: date) -> float:
    return WEEKEND if day.weekday() >= 5 else 1.0


def _moment(chance: Random, day: date) -> datetime:
    return datetime.combine(day, time(), OFFICE) + timedelta(seconds=chance.uniform(8 * 3600, 18 * 3600))
