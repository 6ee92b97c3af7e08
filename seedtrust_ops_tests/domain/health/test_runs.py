"""Runs that fail, expire or wait: each rule just below and just above its threshold, on JobRun's own rows."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.health.runs import WatchedJob, error_spike, expired_runs, pending_accumulating
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import JobRun

CRITICAL = WatchedJob("pays", Severity.CRITICAL, 1)
MINUTELY = WatchedJob("heals", Severity.HIGH, 3)
LOW = WatchedJob("tidies", Severity.LOW, 3)
JOBS = (CRITICAL, MINUTELY, LOW)
WINDOW = 600


def write(
    sessions: sessionmaker[Session], job: str, statuses: str, *, every_seconds: float = 60, last_ago: float = 30
) -> None:
    """Write runs of a job, oldest first: C completed, E failed, X expired, R revoked, P waiting."""
    words = {"C": "COMPLETED", "E": "ERROR", "X": "EXPIRED", "R": "REVOKED", "P": "PENDING"}
    now = datetime.now(UTC)
    with sessions.begin() as session:
        for place, letter in enumerate(statuses):
            ended = now - timedelta(seconds=last_ago + every_seconds * (len(statuses) - 1 - place))
            session.add(
                JobRun(
                    run_id=f"{job}-{place}-{letter}-{last_ago}",
                    task_name=job,
                    status=words[letter],
                    resolution=None if letter == "P" else words[letter],
                    queued_at=ended - timedelta(seconds=5),
                    finished_at=None if letter == "P" else ended,
                )
            )


def told(findings: Sequence[Finding]) -> dict[str, Severity]:
    return {finding.subject: finding.severity for finding in findings}


def errors(sessions: sessionmaker[Session], most: int = 100) -> dict[str, Severity]:
    with sessions() as session:
        return told(error_spike(session, JOBS, window_seconds=WINDOW, most_in_window=most))


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


def test_job_is_in_trouble_after_as_many_failures_in_a_row_as_its_threshold_says(
    sessions: sessionmaker[Session],
) -> None:
    jobs = [replace(like, name=f"{place}: {statuses}") for place, (like, statuses, *_) in enumerate(FAILURES)]
    for job, (_, statuses, last_ago, _) in zip(jobs, FAILURES, strict=True):
        write(sessions, job.name, statuses, last_ago=last_ago)
    with sessions() as session:
        found = told(error_spike(session, jobs, window_seconds=WINDOW, most_in_window=100))
    assert found == {
        f"job {job.name}": job.severity for job, (*_, is_trouble) in zip(jobs, FAILURES, strict=True) if is_trouble
    }


def test_failure_of_a_long_run_counts_although_a_short_one_was_queued_after_it(
    sessions: sessionmaker[Session],
) -> None:
    write(sessions, CRITICAL.name, "C", last_ago=10_000)
    write(sessions, CRITICAL.name, "E", last_ago=9_000)
    with sessions.begin() as session:
        failed = session.query(JobRun).filter_by(status="ERROR").one()
        failed.queued_at = datetime.now(UTC) - timedelta(seconds=20_000)
    assert errors(sessions) == {"job pays": Severity.CRITICAL}


@pytest.mark.parametrize(("failed", "is_spike"), [(4, False), (5, True)])
def test_failures_of_all_watched_jobs_together_are_a_spike_within_the_window(
    sessions: sessionmaker[Session], failed: int, is_spike: bool
) -> None:
    write(sessions, LOW.name, "CE" * failed + "C", every_seconds=10)
    write(sessions, "example_error", "E" * 20)
    write(sessions, MINUTELY.name, "ECECEC", last_ago=WINDOW + 60)
    assert errors(sessions, most=5) == ({"all jobs": Severity.HIGH} if is_spike else {})


EXPIRIES = [
    (CRITICAL, "CX", True),
    (CRITICAL, "CE", False),
    (MINUTELY, "CXX", False),
    (MINUTELY, "XXX", True),
    (MINUTELY, "XXEX", True),
    (MINUTELY, "XXXC", False),
]


def test_runs_that_expire_in_the_queue_are_told_apart_from_those_that_fail(sessions: sessionmaker[Session]) -> None:
    jobs = [replace(like, name=f"{place}: {statuses}") for place, (like, statuses, _) in enumerate(EXPIRIES)]
    for job, (_, statuses, _) in zip(jobs, EXPIRIES, strict=True):
        write(sessions, job.name, statuses, every_seconds=10)
    expired = sum(statuses.count("X") for _, statuses, _ in EXPIRIES)
    with sessions() as session:
        below = told(expired_runs(session, jobs, window_seconds=WINDOW, most_in_window=expired + 1))
        spike = told(expired_runs(session, jobs, window_seconds=WINDOW, most_in_window=expired))
    wrong = {
        f"job {job.name}": job.severity for job, (*_, is_trouble) in zip(jobs, EXPIRIES, strict=True) if is_trouble
    }
    assert below == wrong
    assert spike == wrong | {"all jobs": Severity.HIGH}


@pytest.mark.parametrize(
    ("waiting", "oldest_seconds", "is_trouble"),
    [(0, 0, False), (3, 150, False), (1, 310, True), (4, 30, True)],
)
def test_queue_is_in_trouble_when_it_is_too_long_or_too_slow(
    sessions: sessionmaker[Session], waiting: int, oldest_seconds: float, is_trouble: bool
) -> None:
    write(sessions, LOW.name, "P" * waiting, every_seconds=0, last_ago=oldest_seconds - 5)
    write(sessions, CRITICAL.name, "CCCCC")
    with sessions() as session:
        found = told(pending_accumulating(session, most=3, longest_seconds=300))
    assert found == ({"queue": Severity.HIGH} if is_trouble else {})
