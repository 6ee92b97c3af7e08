"""The worker's daemon is Dagster's with shorter intervals, and long-polling sensors do not delay its shutdown."""

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

from seedtrust_ops.dagster_instance import run_was_queued
from seedtrust_ops.database.engine import application_engine
from seedtrust_ops.database.listen_notify import BATCH_QUEUED, REQUEST_PENDING, NotifyChannel, listen, poll_until
from seedtrust_ops.supervisor import fast_daemon
from seedtrust_ops.supervisor.fast_daemon import (
    CappedWaitEvent,
    FastQueueDaemon,
    FastSensorDaemon,
    create_daemons,
    release_waiting_sensors,
)
from seedtrust_ops.supervisor.worker_stack import find_free_port
from seedtrust_ops_tests.monitoring.sample_runs import STATUS, new_run, set_status
from seedtrust_ops_tests.support.environment import SetVariables

TIMEOUT_SECONDS = 120.0


def test_daemon_runs_every_daemon_that_dagster_would_run(instance: dg.DagsterInstance) -> None:
    daemons = list(create_daemons(instance))
    assert [daemon.daemon_type() for daemon in daemons] == [
        daemon.daemon_type() for daemon in create_daemons_from_instance(instance)
    ]
    assert {type(daemon) for daemon in daemons} >= {FastSensorDaemon, FastQueueDaemon}


def test_wait_is_capped_and_still_sees_the_event() -> None:
    event = Event()
    capped = CappedWaitEvent(event, 0.01)
    assert capped.wait(TIMEOUT_SECONDS) is False
    assert not capped.is_set()
    event.set()
    assert capped.is_set()
    assert capped.wait(TIMEOUT_SECONDS) is True


def test_run_queued_by_a_sensor_does_not_wait_for_the_next_interval(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_daemon, "QUEUE_INTERVAL_SECONDS", 100 * TIMEOUT_SECONDS)
    run_was_queued.clear()
    for _ in range(10):
        set_status(instance, new_run(instance), STATUS.STARTED)
    context: Any = SimpleNamespace(instance=instance)
    workspace: Any = SimpleNamespace()
    with ThreadPoolExecutor(1) as pool:
        iteration = pool.submit(lambda: list(FastQueueDaemon().run_iteration(context)))
        run = instance.get_run_by_id(new_run(instance))
        assert run is not None
        instance.run_coordinator.submit_run(SubmitRunContext(run, workspace))
        iteration.result(TIMEOUT_SECONDS)
    assert instance.get_runs_count(fast_daemon.QUEUED_RUNS) == 1


@pytest.mark.parametrize("channel", [BATCH_QUEUED, REQUEST_PENDING])
def test_shutdown_ends_the_long_polls(
    bank_environment: dict[str, str], sessions: sessionmaker[Session], channel: NotifyChannel
) -> None:
    checked = Event()

    def wait() -> bool:
        with listen(application_engine(), channel) as listener:
            return poll_until(lambda: checked.set() or False, bool, listener, seconds=TIMEOUT_SECONDS)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        assert checked.wait(TIMEOUT_SECONDS)
        release_waiting_sensors(logging.getLogger(__name__))
        assert waiting.result(TIMEOUT_SECONDS / 2) is False


def test_unreachable_database_does_not_block_the_shutdown(
    set_variables: SetVariables, bank_environment: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    set_variables(SEEDTRUST_DATABASE_URL=f"postgresql://ops:hunter2@127.0.0.1:{find_free_port()}/seedtrust")
    release_waiting_sensors(logging.getLogger(__name__))
    assert "DatabaseUnreachable" in caplog.text
    assert "hunter2" not in caplog.text
