"""What `dev` prints: a line for each run and each alert, errors of its programs, and everything else in a file."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.alerts.store import open_alert, resolve_alert
from seedtrust_ops.sandbox.dev_output import Activity, DevOutput
from seedtrust_ops.tables import JobRun
from seedtrust_ops_tests.support.factories import Company

ADDRESS = "http://127.0.0.1:3000"


def add_run(sessions: sessionmaker[Session], run_id: str, status: str, *, error: str | None = None) -> None:
    """Add a run that took three seconds, or that is running if `status` is STARTED."""
    now = datetime.now(UTC)
    ended = None if status == "STARTED" else now
    with sessions.begin() as session:
        session.add(
            JobRun(
                run_id=run_id,
                task_name="off_site_tracking",
                status=status,
                error=error,
                queued_at=now - timedelta(seconds=4),
                started_at=now - timedelta(seconds=3),
                finished_at=ended,
            )
        )


def lines(activity: Activity) -> list[str]:
    return [f"{name} | {line}" for name, line in activity.read_new()]


def test_each_run_is_printed_once_when_it_has_ended(sessions: sessionmaker[Session]) -> None:
    add_run(sessions, "before", "COMPLETED")
    activity = Activity(sessions, ADDRESS)
    add_run(sessions, "running", "STARTED")
    assert lines(activity) == []
    add_run(sessions, "good", "COMPLETED")
    add_run(sessions, "bad", "ERROR", error="There is no batch 4711.\n\x1b[2JCheck it. " + "x" * 500)
    first, second = lines(activity)
    assert first == f"run | off_site_tracking completed in 3 seconds {ADDRESS}/runs/good"
    assert second.startswith("run | off_site_tracking failed in 3 seconds: There is no batch 4711. [2JCheck it. xxx")
    assert second.endswith(f"xxx… {ADDRESS}/runs/bad")
    assert lines(activity) == []
    with sessions.begin() as session:
        session.execute(
            update(JobRun).where(JobRun.run_id == "running").values(status="REVOKED", finished_at=datetime.now(UTC))
        )
    assert lines(activity) == [f"run | off_site_tracking was canceled in 3 seconds {ADDRESS}/runs/running"]


def test_each_alert_is_printed_when_it_opens_and_is_resolved(company: Company, sessions: sessionmaker[Session]) -> None:
    activity = Activity(sessions, ADDRESS)
    with sessions.begin() as session:
        open_alert(session, "batch_stuck", "batch 7", "HIGH", "Nobody is working on batch 7.")
    assert lines(activity) == ["alert | HIGH batch_stuck, batch 7: Nobody is working on batch 7."]
    with sessions.begin() as session:
        resolve_alert(session, "batch_stuck", "batch 7")
    assert lines(activity) == ["alert | Resolved: batch_stuck, batch 7."]
    assert lines(activity) == []


@pytest.mark.parametrize("verbose", [False, True])
def test_program_output_is_in_the_file_and_only_errors_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verbose: bool
) -> None:
    routine = "2026-11-30 14:29:15 +0000 - dagster.daemon.SensorDaemon - INFO - Checking for new runs."
    error = "2026-11-30 14:29:15 +0000 - dagster.daemon - ERROR - The sensor failed."
    with DevOutput(tmp_path / "dev.log", verbose=verbose) as output:
        output.print_output("daemon", routine)
        output.print_output("daemon", error.replace("ERROR", "\x1b[31mERROR\x1b[0m"))
        # A failed run has a line of its own.
        output.print_output("run-host", error)
        output.print_line("sandbox", "The bank was restarted.")
    # Its programs stop after it.
    output.print_output("daemon", "late")
    printed = capsys.readouterr().out
    in_file = (tmp_path / "dev.log").read_text()
    assert (routine in printed, printed.count(error)) == (verbose, 2 if verbose else 1)
    assert "sandbox     | The bank was restarted." in printed
    assert [in_file.count(text) for text in (routine, error, "The bank was restarted.")] == [1, 2, 1]
    assert (str(tmp_path / "dev.log") in printed) is not verbose
