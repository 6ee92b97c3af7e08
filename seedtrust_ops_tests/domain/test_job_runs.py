"""JobRun's rows never go back, whatever is recorded of a run, in whatever order."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.job_runs import RESOLUTIONS, RunFact, mirror_runs
from seedtrust_ops_tests.monitoring.sample_runs import MOMENT, row, rows

PENDING = RunFact("run-1", "some_job", "PENDING", {}, 0, MOMENT, None, None)
STARTED = replace(PENDING, status="STARTED", started_at=MOMENT + timedelta(minutes=1), retries=1)


def ended(status: str, minute: int, **more: Any) -> RunFact:
    return replace(STARTED, status=status, finished_at=MOMENT + timedelta(minutes=minute), retries=2, **more)


def record(sessions: sessionmaker[Session], facts: Sequence[RunFact]) -> int:
    with sessions.begin() as session:
        return mirror_runs(session, facts)


@pytest.mark.parametrize(
    ("facts", "last"),
    [
        ([PENDING, STARTED, ended("COMPLETED", 2, result=[1])], 2),
        ([PENDING, STARTED, ended("EXPIRED", 2), ended("REVOKED", 2)], None),
        # A worker that was taken for dead came back and finished.
        ([PENDING, STARTED, ended("ERROR", 2, error="It died."), ended("COMPLETED", 3, result={"a": 1})], 3),
        ([PENDING, STARTED, ended("REVOKED", 2), ended("ERROR", 3, error="It took too long.")], 3),
    ],
)
def test_in_whatever_order_facts_are_read_the_row_tells_of_the_last_thing_that_happened(
    sessions: sessionmaker[Session], facts: list[RunFact], last: int | None
) -> None:
    orders = [
        [replace(fact, run_id=f"run-{number}") for fact in order] for number, order in enumerate(permutations(facts))
    ]
    for step in range(len(facts)):
        record(sessions, [order[step] for order in orders])
    for order in orders:
        kept = row(sessions, order[0].run_id)
        wanted = facts[last] if last is not None else next(fact for fact in order if fact.finished_at is not None)
        assert (kept.status, kept.resolution) == (wanted.status, wanted.status)
        assert (kept.started_at, kept.finished_at) == (wanted.started_at, wanted.finished_at)
        assert (kept.retries, kept.error, kept.result) == (2, wanted.error, wanted.result)


def test_nothing_brings_a_run_that_ended_back_to_life(sessions: sessionmaker[Session]) -> None:
    steps = ["PENDING", "STARTED", *RESOLUTIONS]
    pairs = [(was, late) for was in steps[1:] for late in steps[:2] if steps.index(late) < steps.index(was)]

    def fact(pair: tuple[str, str], status: str) -> RunFact:
        of_run = PENDING if status == "PENDING" else STARTED if status == "STARTED" else ended(status, 2)
        return replace(of_run, run_id=f"{pair[0]} then {pair[1]}", status=status)

    assert record(sessions, [fact(pair, pair[0]) for pair in pairs]) == len(pairs)
    assert record(sessions, [fact(pair, pair[1]) for pair in pairs]) == 0
    assert rows(sessions) == {f"{was} then {late}": was for was, late in pairs}


def test_of_many_facts_about_one_run_in_one_reading_the_latest_counts(sessions: sessionmaker[Session]) -> None:
    assert record(sessions, [ended("COMPLETED", 2), PENDING, ended("ERROR", 3), STARTED]) == 1
    assert row(sessions, "run-1").status == "ERROR"
    assert record(sessions, []) == 0


def test_a_result_and_an_error_that_become_known_late_still_get_in(sessions: sessionmaker[Session]) -> None:
    record(sessions, [ended("ERROR", 2)])
    late = ended("ERROR", 2, error="The bank was away.", result={"progress": {"done": 1, "total": 3}})
    assert [record(sessions, [late]), record(sessions, [late]), record(sessions, [ended("ERROR", 2)])] == [1, 0, 0]
    kept = row(sessions, "run-1")
    assert (kept.error, kept.result) == ("The bank was away.", {"progress": {"done": 1, "total": 3}})
