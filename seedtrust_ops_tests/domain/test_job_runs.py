"""A JobRun row never goes back to an earlier status, whatever snapshots are recorded in whatever order."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.job_runs import RESOLUTIONS, RunSnapshot, mirror_runs
from seedtrust_ops_tests.monitoring.sample_runs import BASE_TIME, row, rows

PENDING = RunSnapshot("run-1", "some_job", "PENDING", {}, 0, BASE_TIME, None, None)
STARTED = replace(PENDING, status="STARTED", started_at=BASE_TIME + timedelta(minutes=1), retries=1)


def finished(status: str, minute: int, **more: Any) -> RunSnapshot:
    return replace(STARTED, status=status, finished_at=BASE_TIME + timedelta(minutes=minute), retries=2, **more)


def record(sessions: sessionmaker[Session], snapshots: Sequence[RunSnapshot]) -> int:
    with sessions.begin() as session:
        return mirror_runs(session, snapshots)


@pytest.mark.parametrize(
    ("snapshots", "last"),
    [
        ([PENDING, STARTED, finished("COMPLETED", 2, result=[1])], 2),
        ([PENDING, STARTED, finished("EXPIRED", 2), finished("REVOKED", 2)], None),
        # A worker that was presumed crashed came back and finished.
        ([PENDING, STARTED, finished("ERROR", 2, error="It crashed."), finished("COMPLETED", 3, result={"a": 1})], 3),
        ([PENDING, STARTED, finished("REVOKED", 2), finished("ERROR", 3, error="It took too long.")], 3),
    ],
    ids=["completed", "expired and revoked", "completed after error", "error after revoked"],
)
def test_row_has_the_latest_state_in_any_order_of_snapshots(
    sessions: sessionmaker[Session], snapshots: list[RunSnapshot], last: int | None
) -> None:
    orders = [
        [replace(snapshot, run_id=f"run-{number}") for snapshot in order]
        for number, order in enumerate(permutations(snapshots))
    ]
    for step in range(len(snapshots)):
        record(sessions, [order[step] for order in orders])
    for order in orders:
        job_run = row(sessions, order[0].run_id)
        expected = (
            snapshots[last] if last is not None else next(ended for ended in order if ended.finished_at is not None)
        )
        assert (job_run.status, job_run.resolution) == (expected.status, expected.status)
        assert (job_run.started_at, job_run.finished_at) == (expected.started_at, expected.finished_at)
        assert (job_run.retries, job_run.error, job_run.result) == (2, expected.error, expected.result)


def test_finished_run_never_returns_to_an_earlier_status(sessions: sessionmaker[Session]) -> None:
    steps = ["PENDING", "STARTED", *RESOLUTIONS]
    pairs = [(was, late) for was in steps[1:] for late in steps[:2] if steps.index(late) < steps.index(was)]

    def snapshot(pair: tuple[str, str], status: str) -> RunSnapshot:
        of_run = PENDING if status == "PENDING" else STARTED if status == "STARTED" else finished(status, 2)
        return replace(of_run, run_id=f"{pair[0]} then {pair[1]}", status=status)

    assert record(sessions, [snapshot(pair, pair[0]) for pair in pairs]) == len(pairs)
    assert record(sessions, [snapshot(pair, pair[1]) for pair in pairs]) == 0
    assert rows(sessions) == {f"{was} then {late}": was for was, late in pairs}


def test_latest_of_several_snapshots_of_one_run_counts(sessions: sessionmaker[Session]) -> None:
    assert record(sessions, [finished("COMPLETED", 2), PENDING, finished("ERROR", 3), STARTED]) == 1
    assert row(sessions, "run-1").status == "ERROR"
    assert record(sessions, []) == 0


def test_result_and_error_known_late_are_still_recorded(sessions: sessionmaker[Session]) -> None:
    record(sessions, [finished("ERROR", 2)])
    late = finished("ERROR", 2, error="The bank was down.", result={"progress": {"done": 1, "total": 3}})
    assert [record(sessions, [late]), record(sessions, [late]), record(sessions, [finished("ERROR", 2)])] == [1, 0, 0]
    job_run = row(sessions, "run-1")
    assert (job_run.error, job_run.result) == ("The bank was down.", {"progress": {"done": 1, "total": 3}})
