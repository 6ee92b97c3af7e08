"""Dagster's daemon with nothing to do, whose heart beats every second, for the watchdog's tests to kill.

Run as `python -m seedtrust_ops_tests.watchdog.heartbeat_daemon`. The beat of `dagster-daemon run` is fixed at 30 s.
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
