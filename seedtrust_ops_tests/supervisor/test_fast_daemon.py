"""The worker's daemon is Dagster's, turning faster, and its end is not held up by sensors that wait."""

import logging
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.run_coordinator import SubmitRunContext
from dagster._daemon.controller import create_daemons_from_instance
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import get_settings
from seedtrust_ops.dagster_instance import run_was_queued
from seedtrust_ops.database.engine import application_engine
from seedtrust_ops.database.listen_notify import BATCH_QUEUED, REQUEST_PENDING, Signal, listening, wait_until_found
from seedtrust_ops.supervisor import fast_daemon
from seedtrust_ops.supervisor.fast_daemon import FastQueueDaemon, FastSensorDaemon, ShortWaits, daemons_of, end_waits
from seedtrust_ops.supervisor.worker_stack import free_port
from seedtrust_ops_tests.monitoring.sample_runs import STATUS, becomes, new_run

LONG = 120.0


def test_it_runs_every_daemon_that_dagster_would_run(instance: dg.DagsterInstance) -> None:
    ours = list(daemons_of(instance))
    assert [one.daemon_type() for one in ours] == [one.daemon_type() for one in create_daemons_from_instance(instance)]
    assert {type(one) for one in ours} >= {FastSensorDaemon, FastQueueDaemon}


def test_a_long_wait_is_cut_short_and_the_end_is_still_seen() -> None:
    end = Event()
    short = ShortWaits(end, 0.01)
    assert short.wait(LONG) is False
    assert not short.is_set()
    end.set()
    assert short.is_set()
    assert short.wait(LONG) is True


def test_what_a_sensor_queues_is_looked_at_without_waiting_for_the_next_turn(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_daemon, "QUEUE_TURN_SECONDS", 100 * LONG)
    run_was_queued.clear()
    for _ in range(10):
        becomes(instance, new_run(instance), STATUS.STARTED)
    context: Any = SimpleNamespace(instance=instance)
    workspace: Any = SimpleNamespace()
    with ThreadPoolExecutor(1) as pool:
        turn = pool.submit(lambda: list(FastQueueDaemon().run_iteration(context)))
        run = instance.get_run_by_id(new_run(instance))
        assert run is not None
        instance.run_coordinator.submit_run(SubmitRunContext(run, workspace))
        turn.result(LONG)
    assert instance.get_runs_count(fast_daemon.WAITING) == 1


@pytest.mark.parametrize("signal", [BATCH_QUEUED, REQUEST_PENDING])
def test_the_end_of_the_daemon_ends_the_waits(
    bank_environment: dict[str, str], sessions: sessionmaker[Session], signal: Signal
) -> None:
    looked = Event()

    def wait() -> bool:
        with listening(application_engine(), signal) as bell:
            return wait_until_found(lambda: looked.set() or False, bool, bell, seconds=LONG)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        assert looked.wait(LONG)
        end_waits(logging.getLogger(__name__))
        assert waiting.result(LONG / 2) is False


def test_a_database_that_is_down_does_not_keep_the_daemon_from_ending(
    monkeypatch: pytest.MonkeyPatch, bank_environment: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SEEDTRUST_DATABASE_URL", f"postgresql://ops:hunter2@127.0.0.1:{free_port()}/seedtrust")
    get_settings.cache_clear()
    end_waits(logging.getLogger(__name__))
    assert "DatabaseUnreachable" in caplog.text
    assert "hunter2" not in caplog.text
