"""The rest of SeedTrust's week, after the transfers: approvals, reminders, balances, reports, status check, presence.

Run as `python -m seedtrust_ops.sandbox.demo.scheduled_jobs` in the demo's environment. It runs the daily and weekly
jobs one after another in one process, as real Dagster runs; the daemon has run the rest by then.
"""

import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import dagster as dg
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.sandbox.demo.environment import Stage
from seedtrust_ops.sandbox.external_services.control_client import StorageServer
from seedtrust_ops.tables import (
    BalanceAlert,
    Case,
    DisbursementRequest,
    JobRun,
    Notification,
    ReportRequest,
    User,
)

DAILY_AND_WEEKLY = (
    "dr_auto_approval",
    "case_close_reminders",
    "account_balance_check",
    "account_balance_reminders",
    "report_generation",
    "aws_status_check",
    "off_site_tracking",
)
ROWS_SHOWN = 6
TIMEOUT_SECONDS = 600
LOOK_AGAIN_SECONDS = 0.5


def ask_for_reports(session: Session) -> list[int]:
    """Have an administrator ask for three reports, and let a case close today; return the requests' ids."""
    admin_id = session.scalars(select(User.id).where(User.role == "admin", User.is_active).order_by(User.id)).first()
    case_id = session.scalars(select(Case.id).where(Case.status == "active").order_by(Case.id)).first()
    today = datetime.now(UTC).date()
    session.execute(update(Case).where(Case.id == case_id).values(close_on=today))
    requests = [
        ReportRequest(user_id=admin_id, kind="account_balances", format="csv"),
        ReportRequest(user_id=admin_id, kind="case_ledger", format="pdf", params={"case_id": case_id}),
        ReportRequest(
            user_id=admin_id,
            kind="disbursements",
            format="xlsx",
            params={"from": (today - timedelta(days=30)).isoformat(), "to": today.isoformat()},
        ),
    ]
    session.add_all(requests)
    session.flush()
    return [request.id for request in requests]


def play_week(stage: Stage, say: Callable[[str], None]) -> str | None:
    """Run the week's jobs in a process of their own; `say` is told of each. Return what went wrong, if anything."""
    done = subprocess.run(
        [sys.executable, "-m", "seedtrust_ops.sandbox.demo.scheduled_jobs"],
        env=stage.environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    failed = []
    for line in done.stdout.splitlines():
        run = json.loads(line)
        say(f"{run['job']} {'succeeded' if run['success'] else 'failed'} in {run['seconds']} s")
        if not run["success"]:
            failed.append(run["job"])
    if done.returncode == 0:
        return None
    if failed:
        return f"These jobs of the week failed: {', '.join(failed)}."
    return f"The week's jobs could not be run: {done.stderr.strip().splitlines()[-1]}"


def wait_for_job_run(stage: Stage, *, seconds: float) -> bool:
    """Wait until every run is mirrored with its end, for so many seconds at most; return whether it came to that."""
    mirrored = select(func.count()).select_from(JobRun).where(JobRun.resolution.is_not(None))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with stage.sessions() as session:
            if session.scalars(mirrored).one() == stage.instance.get_runs_count():
                return True
        time.sleep(LOOK_AGAIN_SECONDS)
    return False


def story_of(session: Session) -> list[tuple[str, str]]:
    """Return what the week came to, as the tables tell it: what happened, and how much of it."""
    approved = dict(
        session.execute(
            select(DisbursementRequest.approved_by, func.count())
            .where(DisbursementRequest.approved_by.like("auto:%"))
            .group_by(DisbursementRequest.approved_by)
        ).all()
    )
    letters = session.execute(
        select(Notification.kind, Notification.status, func.count().label("number"))
        .group_by(Notification.kind, Notification.status)
        .order_by(Notification.kind)
    ).all()
    alerts = session.scalars(select(func.count()).select_from(BalanceAlert)).one()
    reports = session.execute(
        select(ReportRequest.kind, ReportRequest.format, ReportRequest.status, ReportRequest.error).order_by(
            ReportRequest.id
        )
    ).all()
    words = {1: "waits", 2: "is being made", 3: "was emailed", 4: "failed"}
    return [
        ("requests approved", ", ".join(f"{count} by {who}" for who, count in sorted(approved.items())) or "none"),
        ("letters", "; ".join(f"{row.number} {row.kind} {row.status}" for row in letters) or "none"),
        ("accounts below their minimum", str(alerts)),
        *(
            (f"report {row.kind}.{row.format}", f"{words[row.status]}{f': {row.error}' if row.error else ''}")
            for row in reports
        ),
    ]


def first_rows_of_csv(storage: StorageServer) -> list[list[str]]:
    """Return the first rows of the newest CSV report in the bucket, opened as anybody would."""
    keys = [key for key in storage.keys("reports/") if key.endswith(".csv")]
    if not keys:
        return []
    lines = storage.read(keys[-1]).decode("utf-8-sig").splitlines()
    return [row for row in csv.reader(lines) if row][: ROWS_SHOWN + 1]


def main() -> int:
    """Run the jobs; print a JSON line for each; return how many did not succeed."""
    from seedtrust_ops.definitions import defs
    from seedtrust_ops.jobs.account_balance_check import week_ended_by
    from seedtrust_ops.orchestration.schedules import office_today

    failed = 0
    with dg.DagsterInstance.get() as instance:
        for name in DAILY_AND_WEEKLY:
            began = time.monotonic()
            partition = week_ended_by(office_today()) if name == "account_balance_check" else None
            result = defs.resolve_job_def(name).execute_in_process(
                instance=instance, raise_on_error=False, partition_key=partition
            )
            failed += not result.success
            seconds = round(time.monotonic() - began, 1)
            sys.stdout.write(json.dumps({"job": name, "success": result.success, "seconds": seconds}) + "\n")
            sys.stdout.flush()
    return failed


if __name__ == "__main__":
    sys.exit(main())
