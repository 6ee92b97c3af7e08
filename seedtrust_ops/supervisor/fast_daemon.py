"""Dagster's own daemon with shorter intervals between sensor evaluations and between checks of the run queue.

Run as `python -m seedtrust_ops.supervisor.fast_daemon`. Dagster's sensor loop runs every 5 seconds, so after a sensor
returned one batch, the next would wait up to 5 seconds. Plain `dagster-daemon run` works too, only slower; it is what
runs if the installed version of Dagster lacks what the fast loops need.
See docs/decisions/long-poll-sensors.md.
"""

import argparse
import logging
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import entry_points
from threading import Event
from typing import Any

import dagster as dg
from sqlalchemy.exc import DBAPIError

from seedtrust_ops.dagster_instance import pool_connections, run_was_queued
from seedtrust_ops.dagster_internals import (
    FAST_DAEMON,
    DagsterDaemon,
    QueuedRunCoordinatorDaemon,
    SensorDaemon,
    WorkspaceFileTarget,
    capture_interrupts,
    create_daemons_from_instance,
    daemon_controller_from_instance,
    is_available,
    setup_interrupt_handlers,
)
from seedtrust_ops.database.engine import application_engine
from seedtrust_ops.database.listen_notify import BATCH_QUEUED, REQUEST_PENDING, notify_stop
from seedtrust_ops.errors import SeedTrustError

SENSOR_INTERVAL_SECONDS = 1.0
QUEUE_INTERVAL_SECONDS = 1.0
FULL_QUEUE_INTERVAL_SECONDS = 0.25
"""While runs are queued, because a slot can become free at any time."""
MAX_CONNECTIONS = 24
QUEUED_RUNS = dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])


class CappedWaitEvent(Event):
    """Wraps an event so that no wait for it takes longer than `max_seconds`; Dagster's loops sleep by such waits."""

    def __init__(self, event: Event, max_seconds: float) -> None:
        super().__init__()
        self._event = event
        self._max_seconds = max_seconds

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        return self._event.wait(self._max_seconds if timeout is None else min(timeout, self._max_seconds))


class FastSensorDaemon(SensorDaemon):
    """Checks every second which sensors to evaluate, and releases long-polling sensors at shutdown."""

    def core_loop(self, workspace_process_context: Any, shutdown_event: Event) -> Generator[Any]:
        try:
            yield from super().core_loop(
                workspace_process_context, CappedWaitEvent(shutdown_event, SENSOR_INTERVAL_SECONDS)
            )
        finally:
            if shutdown_event.is_set():
                release_waiting_sensors(self._logger)


class FastQueueDaemon(QueuedRunCoordinatorDaemon):
    """Starts runs queued by the daemon's own sensors and schedules at once, and checks every second for others."""

    def __init__(self) -> None:
        # `run_iteration` does all the waiting.
        super().__init__(interval_seconds=0)
        self._has_queued_runs = False

    def run_iteration(
        self, workspace_process_context: Any, fixed_iteration_time: float | None = None
    ) -> Generator[Any]:
        run_was_queued.wait(FULL_QUEUE_INTERVAL_SECONDS if self._has_queued_runs else QUEUE_INTERVAL_SECONDS)
        run_was_queued.clear()
        # A count costs a fraction of what Dagster reads to decide how many runs to start, and usually none is queued.
        self._has_queued_runs = workspace_process_context.instance.get_runs_count(QUEUED_RUNS) > 0
        if self._has_queued_runs:
            yield from super().run_iteration(workspace_process_context, fixed_iteration_time)


def create_daemons(instance: dg.DagsterInstance) -> "Iterator[DagsterDaemon[Any]]":
    """Yield the daemons that Dagster would run for the instance, with the two fast ones replacing Dagster's."""
    for daemon in create_daemons_from_instance(instance):
        if isinstance(daemon, SensorDaemon):
            yield FastSensorDaemon(instance.get_sensor_settings())
        elif isinstance(daemon, QueuedRunCoordinatorDaemon):
            yield FastQueueDaemon()
        else:
            yield daemon


def release_waiting_sensors(logger: logging.Logger) -> None:
    """Make long-polling sensors return, because the daemon waits for them when it shuts down."""
    try:
        for channel in (BATCH_QUEUED, REQUEST_PENDING):
            notify_stop(application_engine(), channel)
    except (SeedTrustError, DBAPIError) as error:
        logger.warning(
            "Waiting sensors could not be notified of the shutdown (%s). They return on their own within seconds.",
            type(error).__name__,
        )


@contextmanager
def open_instance() -> Iterator[dg.DagsterInstance]:
    """Open the instance of DAGSTER_HOME with pooled connections."""
    with dg.DagsterInstance.get() as instance:
        # Each thread of the sensors, the schedules and the queue can use a connection at the same time.
        pool_connections(instance, max_connections=MAX_CONNECTIONS)
        yield instance


def run_stock_daemon(workspace_file: str) -> None:
    """Run `dagster-daemon run` in this process, until SIGTERM or SIGINT."""
    (command,) = entry_points(group="console_scripts", name="dagster-daemon")
    sys.argv = ["dagster-daemon", "run", "--workspace", workspace_file]
    command.load()()


def main() -> None:
    """Run the daemon on the workspace file `--workspace` until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m seedtrust_ops.supervisor.fast_daemon", description=__doc__)
    parser.add_argument("--workspace", required=True, help="the workspace.yaml that names the code servers")
    workspace_file = parser.parse_args().workspace
    if not is_available(FAST_DAEMON):
        run_stock_daemon(workspace_file)
        return
    workspace = WorkspaceFileTarget([workspace_file])
    setup_interrupt_handlers()
    with (
        suppress(KeyboardInterrupt),
        capture_interrupts(),
        open_instance() as instance,
        daemon_controller_from_instance(instance, workspace, gen_daemons=create_daemons) as controller,
    ):
        controller.check_daemon_loop()


if __name__ == "__main__":
    main()
