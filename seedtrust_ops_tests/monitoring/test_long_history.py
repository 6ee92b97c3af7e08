"""JobRun equals a history of thousands of runs, many of which share an update time."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine, create_engine, event, func, select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.monitoring import job_run_sensor as mirror
from seedtrust_ops.monitoring.job_run_sensor import RECORDS_PER_PAGE
from seedtrust_ops.tables import ErrorRecord, JobRun, OutgoingEvent
from seedtrust_ops_tests.monitoring.run_history import (
    RunCopy,
    build_history,
    execute_sample_runs,
    in_bursts,
    write_history,
)
from seedtrust_ops_tests.monitoring.sample_runs import BASE_TIME, mirror_runs
from seedtrust_ops_tests.support.dagster_homes import DagsterHome
from seedtrust_ops_tests.support.tiers import long_version

LONG_HISTORY = "monitoring/test_long_history.py::test_long_history_is_mirrored_with_bounded_statements"
STATEMENTS_PER_PAGE = 12


@pytest.fixture
def storage(dagster_home: DagsterHome) -> Iterator[Engine]:
    engine = create_engine(dagster_home.storage_url)
    yield engine
    engine.dispose()


@contextmanager
def count_statements() -> Iterator[Counter[str]]:
    """Count the statements that any engine of this process sends, by their first words."""
    sent: Counter[str] = Counter()

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent[" ".join(statement.split()[:3])] += 1

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", count)


def actual_rows(sessions: sessionmaker[Session], history: list[RunCopy]) -> list[tuple[Any, ...]]:
    with sessions() as session:
        rows = {run.run_id: run for run in session.scalars(select(JobRun))}
    return [
        (run.run_id, run.status, run.result, run.error, run.retries, run.finished_at)
        for run in (rows[copy.run_id] for copy in history)
    ]


def expected_rows(history: list[RunCopy]) -> list[tuple[Any, ...]]:
    return [
        (
            copy.run_id,
            copy.sample.status,
            copy.sample.result,
            copy.sample.error,
            copy.sample.retries,
            copy.changed_at if copy.sample.status not in ("PENDING", "STARTED") else None,
        )
        for copy in history
    ]


def catch_up(instance: dg.DagsterInstance, cursor: datetime | None) -> datetime | None:
    """Run ticks until one finds nothing new."""
    changed = 1
    while changed:
        changed, cursor = mirror_runs(instance, cursor)
    return cursor


@pytest.mark.timeout(600)
@pytest.mark.parametrize("runs", [3_000, pytest.param(10_000, marks=long_version(of=LONG_HISTORY))])
def test_long_history_is_mirrored_with_bounded_statements(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    storage: Engine,
    monkeypatch: pytest.MonkeyPatch,
    runs: int,
) -> None:
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda _policy, _attempt: 0)
    monkeypatch.setattr(mirror, "MAX_TICK_SECONDS", 600)
    samples = execute_sample_runs(instance)
    history = build_history(samples, runs, in_bursts(BASE_TIME))

    # A third is started on the first tick. They end while no tick runs, at times before the cursor.
    write_history(storage, history[::3], as_started=True)
    cursor = catch_up(instance, None)
    write_history(storage, history)

    with count_statements() as sent:
        assert mirror_runs(instance, BASE_TIME - timedelta(days=1))[0] >= runs // 2
    pages = runs // RECORDS_PER_PAGE
    assert sum(sent.values()) < 2 * pages * STATEMENTS_PER_PAGE, sent
    cursor = catch_up(instance, cursor)
    assert actual_rows(sessions, history) == expected_rows(history)

    failed = sum(copy.sample.status == "ERROR" for copy in history) + 1
    with sessions() as session:
        events = session.scalars(select(func.count()).select_from(OutgoingEvent)).one()
        per_run = Counter(session.scalars(select(ErrorRecord.job_run_id)))
    assert (len(per_run), set(per_run.values()), events) == (failed, {1}, 2 * failed)

    # The cursor is lost, and the whole history is read again.
    assert cursor is not None
    assert cursor <= datetime.now(UTC)
    assert mirror_runs(instance, None)[0] == 0
    with sessions() as session:
        assert session.scalars(select(func.count()).select_from(ErrorRecord)).one() == failed
        assert session.scalars(select(func.count()).select_from(OutgoingEvent)).one() == 2 * failed
