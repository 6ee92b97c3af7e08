"""Runs that fail, expire or wait, and missed ticks: each rule just below and just above its threshold."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.health.runs import (
    Automation,
    WatchedJob,
    error_spike,
    expired_runs,
    pending_accumulating,
    schedule_missed,
)
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import JobRun

CRITICAL = WatchedJob("pay", Severity.CRITICAL, 1)
MINUTELY = WatchedJob("heal", Severity.HIGH, 3)
LOW = WatchedJob("clean_up", Severity.LOW, 3)
JOBS = (CRITICAL, MINUTELY, LOW)
WINDOW = 600
NOW = datetime(2026, 3, 3, 12, tzinfo=UTC)


def add_runs(
    sessions: sessionmaker[Session], job: str, statuses: str, *, every_seconds: float = 60, last_ago: float = 30
) -> None:
    """Write runs of a job, oldest first: C completed, E failed, X expired, R revoked, P waiting."""
    names = {"C": "COMPLETED", "E": "ERROR", "X": "EXPIRED", "R": "REVOKED", "P": "PENDING"}
    now = datetime.now(UTC)
    with sessions.begin() as session:
        for position, code in enumerate(statuses):
            ended = now - timedelta(seconds=last_ago + every_seconds * (len(statuses) - 1 - position))
            session.add(
                JobRun(
                    run_id=f"{job}-{position}-{code}-{last_ago}",
                    task_name=job,
                    status=names[code],
                    resolution=None if code == "P" else names[code],
                    queued_at=ended - timedelta(seconds=5),
                    finished_at=None if code == "P" else ended,
                )
            )


def severities(findings: Sequence[Finding]) -> dict[str, Severity]:
    return {finding.subject: finding.severity for finding in findings}


def failed_jobs(sessions: sessionmaker[Session], window_limit: int = 100) -> dict[str, Severity]:
    with sessions() as session:
        return severities(error_spike(session, JOBS, window_seconds=WINDOW, window_limit=window_limit))


FAILURES = [
    (CRITICAL, "", 30, False),
    (CRITICAL, "CCC", 30, False),
    (CRITICAL, "CE", 30, True),
    (CRITICAL, "E", 90_000, True),
    (CRITICAL, "ER", 30, True),
    (CRITICAL, "EX", 30, True),
    (CRITICAL, "EC", 30, True),
    (CRITICAL, "EC", WINDOW - 250, True),
    (CRITICAL, "EC", WINDOW, False),
    (MINUTELY, "CEE", 30, False),
    (MINUTELY, "EEE", 30, True),
    (MINUTELY, "CEEE", 90_000, True),
    (MINUTELY, "EEEC", 30, False),
    (MINUTELY, "EERE", 30, True),
    (MINUTELY, "ECEE", 30, False),
    (LOW, "EE", 30, False),
    (LOW, "EEE", 30, True),
]


def test_job_alerts_after_its_number_of_consecutive_failures(
    sessions: sessionmaker[Session],
) -> None:
    jobs = [replace(like, name=f"{position}: {statuses}") for position, (like, statuses, *_) in enumerate(FAILURES)]
    for job, (_, statuses, last_ago, _) in zip(jobs, FAILURES, strict=True):
        add_runs(sessions, job.name, statuses, last_ago=last_ago)
    with sessions() as session:
        found = severities(error_spike(session, jobs, window_seconds=WINDOW, window_limit=100))
    assert found == {
        f"job {job.name}": job.severity for job, (*_, is_finding) in zip(jobs, FAILURES, strict=True) if is_finding
    }


def test_failure_counts_by_end_time_not_queue_time(
    sessions: sessionmaker[Session],
) -> None:
    add_runs(sessions, CRITICAL.name, "C", last_ago=10_000)
    add_runs(sessions, CRITICAL.name, "E", last_ago=9_000)
    with sessions.begin() as session:
        failed = session.query(JobRun).filter_by(status="ERROR").one()
        failed.queued_at = datetime.now(UTC) - timedelta(seconds=20_000)
    assert failed_jobs(sessions) == {"job pay": Severity.CRITICAL}


@pytest.mark.parametrize(("failed", "is_spike"), [(4, False), (5, True)])
def test_failures_of_all_watched_jobs_in_the_window_are_a_spike(
    sessions: sessionmaker[Session], failed: int, is_spike: bool
) -> None:
    add_runs(sessions, LOW.name, "CE" * failed + "C", every_seconds=10)
    add_runs(sessions, "example_error", "E" * 20)
    add_runs(sessions, MINUTELY.name, "ECECEC", last_ago=WINDOW + 60)
    assert failed_jobs(sessions, window_limit=5) == ({"all jobs": Severity.HIGH} if is_spike else {})


EXPIRIES = [
    (CRITICAL, "CX", True),
    (CRITICAL, "CE", False),
    (MINUTELY, "CXX", False),
    (MINUTELY, "XXX", True),
    (MINUTELY, "XXEX", True),
    (MINUTELY, "XXXC", False),
]


def test_expired_runs_are_counted_apart_from_failed_runs(sessions: sessionmaker[Session]) -> None:
    jobs = [replace(like, name=f"{position}: {statuses}") for position, (like, statuses, _) in enumerate(EXPIRIES)]
    for job, (_, statuses, _) in zip(jobs, EXPIRIES, strict=True):
        add_runs(sessions, job.name, statuses, every_seconds=10)
    expired = sum(statuses.count("X") for _, statuses, _ in EXPIRIES)
    with sessions() as session:
        below = severities(expired_runs(session, jobs, window_seconds=WINDOW, window_limit=expired + 1))
        spike = severities(expired_runs(session, jobs, window_seconds=WINDOW, window_limit=expired))
    expected = {
        f"job {job.name}": job.severity for job, (*_, is_finding) in zip(jobs, EXPIRIES, strict=True) if is_finding
    }
    assert below == expected
    assert spike == expected | {"all jobs": Severity.HIGH}


@pytest.mark.parametrize(
    ("waiting", "oldest_seconds", "is_finding"),
    [(0, 0, False), (3, 150, False), (1, 310, True), (4, 30, True)],
)
def test_queue_alerts_when_too_long_or_too_slow(
    sessions: sessionmaker[Session], waiting: int, oldest_seconds: float, is_finding: bool
) -> None:
    add_runs(sessions, LOW.name, "P" * waiting, every_seconds=0, last_ago=oldest_seconds - 5)
    add_runs(sessions, CRITICAL.name, "CCCCC")
    with sessions() as session:
        found = severities(pending_accumulating(session, max_pending=3, max_wait_seconds=300))
    assert found == ({"queue": Severity.HIGH} if is_finding else {})


@pytest.mark.parametrize(
    ("due_ago", "daemon_up_for", "is_missed"),
    [
        (-600, 90_000, False),
        (110, 90_000, False),
        (130, 90_000, True),
        # The daemon was down and came back: ticks get as long to catch up.
        (9_000, 110, False),
        (9_000, 130, True),
    ],
)
def test_overdue_tick_is_missed_unless_the_daemon_just_came_back(
    due_ago: float, daemon_up_for: float, is_missed: bool
) -> None:
    automation = Automation("auto_heal_schedule", Severity.HIGH, NOW - timedelta(seconds=due_ago), "FAILURE")
    daemon_up_since = NOW - timedelta(seconds=daemon_up_for)
    found = schedule_missed([automation], now=NOW, daemon_up_since=daemon_up_since, missed_seconds=120)
    assert [(finding.subject, finding.severity) for finding in found] == (
        [("auto_heal_schedule", Severity.HIGH)] if is_missed else []
    )
    assert all("Its newest tick: FAILURE." in finding.detail for finding in found)
