"""Every run that changed since a cursor is mirrored: any cursor, equal times, late storage, any page size."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.monitoring import changed_runs
from seedtrust_ops.monitoring import job_run_sensor as mirror
from seedtrust_ops_tests.monitoring.sample_runs import (
    BASE_TIME,
    STATUS,
    mirror_runs,
    new_run,
    row,
    rows,
    set_status,
)


@pytest.mark.parametrize("cursor", [None, BASE_TIME, BASE_TIME + timedelta(days=1), BASE_TIME - timedelta(days=4000)])
def test_cursor_misses_no_run_that_changed_after_it(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session], cursor: datetime | None
) -> None:
    at = {hours: new_run(instance) for hours in (0, 12, 24, 36)}
    for hours, run_id in at.items():
        set_status(instance, run_id, STATUS.SUCCESS, BASE_TIME + timedelta(hours=hours))
    _, reached = mirror_runs(instance, cursor)
    expected = {run for hours, run in at.items() if cursor is None or BASE_TIME + timedelta(hours=hours) >= cursor}
    assert expected <= set(rows(sessions))
    assert reached == BASE_TIME + timedelta(hours=36)


def test_change_stored_slightly_late_is_not_missed(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    now = datetime.now(UTC)
    early, late = new_run(instance), new_run(instance)
    set_status(instance, late, STATUS.SUCCESS, now)
    set_status(instance, early, STATUS.SUCCESS, now - mirror.OVERLAP / 2)
    mirror_runs(instance, now)
    assert rows(sessions) == {early: "COMPLETED", late: "COMPLETED"}


def test_run_that_ends_by_a_slow_clock_is_not_left_unfinished(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    run_id = new_run(instance)
    set_status(instance, run_id, STATUS.STARTED)
    _, cursor = mirror_runs(instance)
    assert rows(sessions) == {run_id: "STARTED"}
    set_status(instance, run_id, STATUS.FAILURE, BASE_TIME)
    assert mirror_runs(instance, cursor) == (1, cursor)
    assert rows(sessions) == {run_id: "ERROR"}
    assert mirror_runs(instance, cursor) == (0, cursor)


@pytest.mark.parametrize(("equal", "page"), [(7, 3), (9, 3), (30, 3), (5, 1)])
def test_runs_with_equal_times_beyond_a_page_are_all_mirrored(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    monkeypatch: pytest.MonkeyPatch,
    equal: int,
    page: int,
) -> None:
    monkeypatch.setattr(changed_runs, "RECORDS_PER_PAGE", page)
    runs = [new_run(instance) for _ in range(equal + 4)]
    for number, run_id in enumerate(runs):
        changed_at = BASE_TIME + timedelta(seconds=0 if number < 2 else 60 if number < equal + 2 else 120)
        set_status(instance, run_id, STATUS.SUCCESS, changed_at)
    _, cursor = mirror_runs(instance)
    assert set(rows(sessions)) == set(runs)
    assert cursor == BASE_TIME + timedelta(seconds=120)


def test_runs_beyond_one_tick_are_mirrored_by_the_next_ticks(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changed_runs, "RECORDS_PER_PAGE", 2)
    monkeypatch.setattr(mirror, "MAX_TICK_SECONDS", 0)
    runs = [new_run(instance) for _ in range(9)]
    for number, run_id in enumerate(runs):
        set_status(instance, run_id, STATUS.SUCCESS, BASE_TIME + timedelta(minutes=number))
    cursor, ticks = None, 0
    while len(rows(sessions)) < len(runs):
        reached = mirror_runs(instance, cursor)[1]
        assert reached is not None
        assert cursor is None or reached > cursor
        cursor, ticks = reached, ticks + 1
    assert ticks > 1


def test_cursor_stays_if_there_is_no_run(instance: dg.DagsterInstance) -> None:
    assert mirror_runs(instance) == (0, None)
    assert mirror_runs(instance, BASE_TIME) == (0, BASE_TIME)


def test_second_mirroring_changes_nothing(instance: dg.DagsterInstance, sessions: sessionmaker[Session]) -> None:
    runs = [new_run(instance) for _ in range(3)]
    set_status(instance, runs[0], STATUS.STARTED)
    set_status(instance, runs[1], STATUS.SUCCESS)
    changed, cursor = mirror_runs(instance)
    before = [row(sessions, run_id).updated_at for run_id in runs]
    assert changed == 3
    assert [mirror_runs(instance, cursor)[0], mirror_runs(instance, None)[0]] == [0, 0]
    assert [row(sessions, run_id).updated_at for run_id in runs] == before
