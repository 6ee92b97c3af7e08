"""Whatever changed since a cursor is mirrored: from any cursor, at equal times, stored late, in pages of any size."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.monitoring import changed_runs
from seedtrust_ops.monitoring import job_run_sensor as mirror
from seedtrust_ops_tests.monitoring.sample_runs import (
    MOMENT,
    STATUS,
    becomes,
    look,
    new_run,
    row,
    rows,
)


@pytest.mark.parametrize("cursor", [None, MOMENT, MOMENT + timedelta(days=1), MOMENT - timedelta(days=4000)])
def test_from_any_cursor_nothing_that_changed_after_it_is_missed(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session], cursor: datetime | None
) -> None:
    at = {hours: new_run(instance) for hours in (0, 12, 24, 36)}
    for hours, run_id in at.items():
        becomes(instance, run_id, STATUS.SUCCESS, MOMENT + timedelta(hours=hours))
    _, reached = look(instance, cursor)
    wanted = {run for hours, run in at.items() if cursor is None or MOMENT + timedelta(hours=hours) >= cursor}
    assert wanted <= set(rows(sessions))
    assert reached == MOMENT + timedelta(hours=36)


def test_a_change_that_is_stored_a_little_late_behind_a_newer_one_is_not_missed(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    now = datetime.now(UTC)
    early, late = new_run(instance), new_run(instance)
    becomes(instance, late, STATUS.SUCCESS, now)
    becomes(instance, early, STATUS.SUCCESS, now - mirror.OVERLAP / 2)
    look(instance, now)
    assert rows(sessions) == {early: "COMPLETED", late: "COMPLETED"}


def test_a_run_that_ends_by_a_clock_far_behind_the_cursor_is_not_left_open(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    run_id = new_run(instance)
    becomes(instance, run_id, STATUS.STARTED)
    _, cursor = look(instance)
    assert rows(sessions) == {run_id: "STARTED"}
    becomes(instance, run_id, STATUS.FAILURE, MOMENT)
    assert look(instance, cursor) == (1, cursor)
    assert rows(sessions) == {run_id: "ERROR"}
    assert look(instance, cursor) == (0, cursor)


@pytest.mark.parametrize(("equal", "page"), [(7, 3), (9, 3), (30, 3), (5, 1)])
def test_more_runs_of_one_and_the_same_time_than_a_page_holds_are_all_mirrored(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    monkeypatch: pytest.MonkeyPatch,
    equal: int,
    page: int,
) -> None:
    monkeypatch.setattr(changed_runs, "RECORDS_A_PAGE", page)
    runs = [new_run(instance) for _ in range(equal + 4)]
    for number, run_id in enumerate(runs):
        moment = MOMENT + timedelta(seconds=0 if number < 2 else 60 if number < equal + 2 else 120)
        becomes(instance, run_id, STATUS.SUCCESS, moment)
    _, cursor = look(instance)
    assert set(rows(sessions)) == set(runs)
    assert cursor == MOMENT + timedelta(seconds=120)


def test_what_one_tick_can_t_read_the_next_ones_do(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changed_runs, "RECORDS_A_PAGE", 2)
    monkeypatch.setattr(mirror, "SECONDS_A_TICK", 0)
    runs = [new_run(instance) for _ in range(9)]
    for number, run_id in enumerate(runs):
        becomes(instance, run_id, STATUS.SUCCESS, MOMENT + timedelta(minutes=number))
    cursor, ticks = None, 0
    while len(rows(sessions)) < len(runs):
        reached = look(instance, cursor)[1]
        assert reached is not None
        assert cursor is None or reached > cursor
        cursor, ticks = reached, ticks + 1
    assert ticks > 1


def test_with_no_run_at_all_the_cursor_stays(instance: dg.DagsterInstance) -> None:
    assert look(instance) == (0, None)
    assert look(instance, MOMENT) == (0, MOMENT)


def test_reading_again_changes_nothing(instance: dg.DagsterInstance, sessions: sessionmaker[Session]) -> None:
    runs = [new_run(instance) for _ in range(3)]
    becomes(instance, runs[0], STATUS.STARTED)
    becomes(instance, runs[1], STATUS.SUCCESS)
    changed, cursor = look(instance)
    before = [row(sessions, run_id).updated_at for run_id in runs]
    assert changed == 3
    assert [look(instance, cursor)[0], look(instance, None)[0]] == [0, 0]
    assert [row(sessions, run_id).updated_at for run_id in runs] == before
