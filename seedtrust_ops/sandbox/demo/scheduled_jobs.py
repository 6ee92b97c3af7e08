"""The demo's other jobs, after the transfers: approvals, reminders, balances, reports, status check, presence.

Run as `python -m seedtrust_ops.sandbox.demo.scheduled_jobs` in the demo's environment. It runs the daily and weekly
jobs one after another in one process, as real Dagster runs; the daemon has already run the frequent ones.
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

from seedtrust_ops.sandbox.demo.environment import DemoEnvironment
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
POLL_SECONDS = 0.5
REPORT_STATUSES = {1: "waiting", 2: "in progress", 3: "emailed", 4: "failed"}


def request_reports(session: Session) -> list[int]:
    """Request three reports as an administrator, and set a case to close today; return the request ids."""
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


def run_scheduled_jobs(env: DemoEnvironment, print_message: Callable[[str], None]) -> str | None:
    """Run the daily and weekly jobs in a child process; print a message for each; return an error message or None."""
    process = subprocess.run(
        [sys.executable, "-m", "seedtrust_ops.sandbox.demo.scheduled_jobs"],
        env=env.variables,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    failed = []
    for line in process.stdout.splitlines():
        run = json.loads(line)
        print_message(f"Job {run['job']} {'succeeded' if run['success'] else 'failed'} in {run['seconds']} s")
        if not run["success"]:
            failed.append(run["job"])
    if process.returncode == 0:
        return None
    if failed:
        return f"These jobs failed: {', '.join(failed)}."
    return f"The daily and weekly jobs did not start: {process.stderr.strip().splitlines()[-1]}"


def wait_for_job_run_sync(env: DemoEnvironment, *, seconds: float) -> bool:
    """Wait up to `seconds` until JobRun has the final status of every Dagster run; return whether it does."""
    mirrored = select(func.count()).select_from(JobRun).where(JobRun.resolution.is_not(None))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with env.sessions() as session:
            if session.scalars(mirrored).one() == env.instance.get_runs_count():
                return True
        time.sleep(POLL_SECONDS)
    return False


def summarize_results(session: Session) -> list[tuple[str, str]]:
    """Return the jobs' results from the database as (label, result) pairs."""
    approved = dict(
        session.execute(
            select(DisbursementRequest.approved_by, func.count())
            .where(DisbursementRequest.approved_by.like("auto:%"))
            .group_by(DisbursementRequest.approved_by)
        ).all()
    )
    emails = session.execute(
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
    return [
        (
            "requests approved automatically",
            ", ".join(f"{count} by {approver}" for approver, count in sorted(approved.items())) or "none",
        ),
        ("emails", "; ".join(f"{row.number} {row.kind} {row.status}" for row in emails) or "none"),
        ("accounts below their minimum balance", str(alerts)),
        *(
            (
                f"report {row.kind}.{row.format}",
                f"{REPORT_STATUSES[row.status]}{f': {row.error}' if row.error else ''}",
            )
            for row in reports
        ),
    ]


def csv_report_rows(storage: StorageServer) -> list[list[str]]:
    """Return the first rows of the newest CSV report in the bucket; empty if there is none."""
    keys = [key for key in storage.keys("reports/") if key.endswith(".csv")]
    if not keys:
        return []
    lines = storage.read(keys[-1]).decode("utf-8-sig").splitlines()
    return [row for row in csv.reader(lines) if row][: ROWS_SHOWN + 1]


def main() -> int:
    """Run the jobs, print a JSON line for each, and return how many failed."""
    from seedtrust_ops.definitions import defs
    from seedtrust_ops.jobs.account_balance_check import last_complete_week
    from seedtrust_ops.orchestration.schedules import office_today

    failed = 0
    with dg.DagsterInstance.get() as instance:
        for name in DAILY_AND_WEEKLY:
            started_at = time.monotonic()
            partition = last_complete_week(office_today()) if name == "account_balance_check" else None
            result = defs.resolve_job_def(name).execute_in_process(
                instance=instance, raise_on_error=False, partition_key=partition
            )
            failed += not result.success
            seconds = round(time.monotonic() - started_at, 1)
            sys.stdout.write(json.dumps({"job": name, "success": result.success, "seconds": seconds}) + "\n")
            sys.stdout.flush()
    return failed


if __name__ == "__main__":
    sys.exit(main())
