"""Ten thousand runs, thousands of them changed at one and the same time, read out of order: JobRun equals them all."""

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
from seedtrust_ops.monitoring.changed_runs import RECORDS_A_PAGE
from seedtrust_ops.tables import ErrorRecord, JobRun, OutgoingEvent
from seedtrust_ops_tests.monitoring.run_history import Copy, copies, in_lumps, real_runs, write
from seedtrust_ops_tests.monitoring.sample_runs import MOMENT, look
from seedtrust_ops_tests.support.dagster_homes import DagsterHome

RUNS = 10_000
STATEMENTS_A_PAGE = 12


@pytest.fixture
def storage(dagster_home: DagsterHome) -> Iterator[Engine]:
    engine = create_engine(dagster_home.storage_url)
    yield engine
    engine.dispose()


@contextmanager
def statements() -> Iterator[Counter[str]]:
    """Counts the statements that any engine of this process sends, by what they begin with."""
    sent: Counter[str] = Counter()

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent[" ".join(statement.split()[:3])] += 1

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", count)


def mirrored(sessions: sessionmaker[Session], history: list[Copy]) -> list[tuple[Any, ...]]:
    with sessions() as session:
        kept = {run.run_id: run for run in session.scalars(select(JobRun))}
    return [
        (run.run_id, run.status, run.result, run.error, run.retries, run.finished_at)
        for run in (kept[copy.run_id] for copy in history)
    ]


def wanted(history: list[Copy]) -> list[tuple[Any, ...]]:
    return [
        (
            copy.run_id,
            copy.kind.status,
            copy.kind.result,
            copy.kind.error,
            copy.kind.retries,
            copy.changed_at if copy.kind.status not in ("PENDING", "STARTED") else None,
        )
        for copy in history
    ]


def catch_up(instance: dg.DagsterInstance, cursor: datetime | None) -> datetime | None:
    """Tick as the sensor does, until a tick finds nothing new."""
    changed = 1
    while changed:
        changed, cursor = look(instance, cursor)
    return cursor


@pytest.mark.timeout(600)
def test_after_any_downtime_all_runs_are_mirrored_row_by_row_in_a_bounded_number_of_statements(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session], storage: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda _policy, _attempt: 0)
    monkeypatch.setattr(mirror, "SECONDS_A_TICK", 600)
    kinds = real_runs(instance)
    history = copies(kinds, RUNS, in_lumps(MOMENT))

    # A third is under way when the mirror first looks. They end while it is away, bearing times before its cursor.
    write(storage, history[::3], as_started=True)
    cursor = catch_up(instance, None)
    write(storage, history)

    with statements() as sent:
        assert look(instance, MOMENT - timedelta(days=1))[0] >= RUNS // 2
    pages = RUNS // RECORDS_A_PAGE
    assert sum(sent.values()) < 2 * pages * STATEMENTS_A_PAGE, sent
    cursor = catch_up(instance, cursor)
    assert mirrored(sessions, history) == wanted(history)

    failed = sum(copy.kind.status == "ERROR" for copy in history) + 1
    with sessions() as session:
        told = session.scalars(select(func.count()).select_from(OutgoingEvent)).one()
        per_run = Counter(session.scalars(select(ErrorRecord.job_run_id)))
    assert (len(per_run), set(per_run.values()), told) == (failed, {1}, 2 * failed)

    # The cursor is lost, and all of history is read once more.
    assert cursor is not None
    assert cursor <= datetime.now(UTC)
    assert look(instance, None)[0] == 0
    with sessions() as session:
        assert session.scalars(select(func.count()).select_from(ErrorRecord)).one() == failed
        assert session.scalars(select(func.count()).select_from(OutgoingEvent)).one() == 2 * failed
