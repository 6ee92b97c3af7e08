"""Dagster's own daemon, evaluating more often: for what waiting sensors found, and for runs to start.

Run as `python -m seedtrust_ops.supervisor.fast_daemon`. Dagster's sensor loop runs every 5 seconds, so the next batch
would wait up to 5 seconds after a sensor returned one; plain `dagster-daemon run` works too, that much slower.
"""

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event
from typing import Any

import dagster as dg
from dagster._core.workspace.context import IWorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.controller import create_daemons_from_instance, daemon_controller_from_instance
from dagster._daemon.daemon import DaemonIterator, DagsterDaemon, SensorDaemon
from dagster._daemon.run_coordinator import QueuedRunCoordinatorDaemon
from dagster._utils.interrupts import capture_interrupts, setup_interrupt_handlers
from sqlalchemy.exc import DBAPIError

from seedtrust_ops.dagster_instance import keep_connections, run_was_queued
from seedtrust_ops.database.engine import application_engine
from seedtrust_ops.database.listen_notify import BATCH_QUEUED, REQUEST_PENDING, stop_waiting
from seedtrust_ops.errors import SeedTrustError

SENSOR_TURN_SECONDS = 1.0
QUEUE_TURN_SECONDS = 1.0
FULL_QUEUE_TURN_SECONDS = 0.25
"""While runs wait for a place, which may become free at any time."""
MOST_CONNECTIONS = 24
WAITING = dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])


class ShortWaits(Event):
    """Another event, of which nobody waits longer than `seconds` at a time: Dagster's loops sleep by waiting for it."""

    def __init__(self, event: Event, seconds: float) -> None:
        super().__init__()
        self._event = event
        self._seconds = seconds

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        return self._event.wait(self._seconds if timeout is None else min(timeout, self._seconds))


class FastSensorDaemon(SensorDaemon):
    """Looks for sensors to evaluate every second, and ends the waits of those that wait when it is stopped."""

    def core_loop(
        self, workspace_process_context: IWorkspaceProcessContext[Any], shutdown_event: Event
    ) -> DaemonIterator:
        try:
            yield from super().core_loop(workspace_process_context, ShortWaits(shutdown_event, SENSOR_TURN_SECONDS))
        finally:
            if shutdown_event.is_set():
                end_waits(self._logger)


class FastQueueDaemon(QueuedRunCoordinatorDaemon):
    """Starts what the daemon's own sensors and schedules queue at once; looks every second for what others queued."""

    def __init__(self) -> None:
        # All the waiting is in `run_iteration`.
        super().__init__(interval_seconds=0)
        self._runs_wait = False

    def run_iteration(
        self, workspace_process_context: IWorkspaceProcessContext[Any], fixed_iteration_time: float | None = None
    ) -> DaemonIterator:
        run_was_queued.wait(FULL_QUEUE_TURN_SECONDS if self._runs_wait else QUEUE_TURN_SECONDS)
        run_was_queued.clear()
        # A count costs a fraction of what Dagster reads to see how many may start, and mostly there is none.
        self._runs_wait = workspace_process_context.instance.get_runs_count(WAITING) > 0
        if self._runs_wait:
            yield from super().run_iteration(workspace_process_context, fixed_iteration_time)


def daemons_of(instance: dg.DagsterInstance) -> Iterator[DagsterDaemon[Any]]:
    """Yield the daemons that Dagster would run for the instance, the two prompt ones in their places."""
    for daemon in create_daemons_from_instance(instance):
        if isinstance(daemon, SensorDaemon):
            yield FastSensorDaemon(instance.get_sensor_settings())
        elif isinstance(daemon, QueuedRunCoordinatorDaemon):
            yield FastQueueDaemon()
        else:
            yield daemon


def end_waits(logger: logging.Logger) -> None:
    """Let the sensors that wait return, for the daemon waits for them at its end."""
    try:
        for signal in (BATCH_QUEUED, REQUEST_PENDING):
            stop_waiting(application_engine(), signal)
    except (SeedTrustError, DBAPIError) as error:
        # They return by themselves within seconds.
        logger.warning("Waiting sensors could not be told of the daemon's end: %s", type(error).__name__)


@contextmanager
def own_instance() -> Iterator[dg.DagsterInstance]:
    """Open the instance of DAGSTER_HOME, with connections that are kept."""
    with dg.DagsterInstance.get() as instance:
        # Each thread of the sensors, the schedules and the queue may be in the middle of one.
        keep_connections(instance, most=MOST_CONNECTIONS)
        yield instance


def main() -> None:
    """Run the daemon on the workspace file `--workspace` until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m seedtrust_ops.supervisor.fast_daemon", description=__doc__)
    parser.add_argument("--workspace", required=True, help="the workspace.yaml that names the code servers")
    workspace = WorkspaceFileTarget([parser.parse_args().workspace])
    setup_interrupt_handlers()
    with (
        suppress(KeyboardInterrupt),
        capture_interrupts(),
        own_instance() as instance,
        daemon_controller_from_instance(instance, workspace, gen_daemons=daemons_of) as controller,
    ):
        controller.check_daemon_loop()


if __name__ == "__main__":
    main()
