"""Dagster's daemon without work and with a heartbeat every second, for the watchdog tests to kill.

Run as `python -m seedtrust_ops_tests.watchdog.heartbeat_daemon`. `dagster-daemon run` has a fixed interval of 30 s.
"""

import dagster as dg
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.controller import daemon_controller_from_instance

if __name__ == "__main__":
    with (
        dg.DagsterInstance.get() as instance,
        daemon_controller_from_instance(instance, EmptyWorkspaceTarget(), heartbeat_interval_seconds=1) as controller,
    ):
        controller.check_daemon_loop()
