"""The process of one run, forked from a zygote or started cold: locks the run, then executes it as Dagster does.

A cold start is `python -m seedtrust_ops.launcher.run_worker --folder FOLDER ARGUMENTS`, with the arguments of `dagster
api execute_run`. SIGINT and SIGTERM are blocked when it starts, so that none is lost before Dagster handles them.
"""

import argparse
import fcntl
import hashlib
import signal
import sys
from pathlib import Path

from dagster import DagsterInstance, DagsterRunStatus, deserialize_value

from seedtrust_ops.dagster_instance import LocalRunOutput, pool_connections
from seedtrust_ops.dagster_internals import (
    ExecuteRunArgs,
    _execute_run_command_body,
    capture_interrupts,
    get_instance_for_cli,
)
from seedtrust_ops.launcher.forking import STOP_SIGNALS
from seedtrust_ops.launcher.worker_identity import WorkerIdentity

RUN_LOCKS_FILE = "runs.lock"
"""The file in the launcher's folder in which every run locks one byte."""
MAX_CONNECTIONS = 11
_held_lock_files: list[object] = []


def execute_run(arguments: str, folder: Path) -> int:
    """Execute the run that `arguments` (a serialized `ExecuteRunArgs`) names; return the process's exit code.

    If another process is already executing the run, do nothing and return 0.
    """
    with capture_interrupts():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        run = deserialize_value(arguments, ExecuteRunArgs)
        if not _try_lock_run(run.run_id, folder):
            sys.stderr.write(f"Run {run.run_id} already has a worker. This process exits without executing it.\n")
            return 0
        with get_instance_for_cli(instance_ref=run.instance_ref) as instance:
            _tune_instance(instance)
            # Set the tag before reading the run's status: then a cancellation finds the worker, or the worker sees it.
            instance.add_run_tags(run.run_id, WorkerIdentity.of_current_process().tags)
            code = _execute_run_command_body(
                run.run_id,
                instance,
                write_stream_fn=lambda _event: None,
                set_exit_code_on_failure=run.set_exit_code_on_failure or False,
            )
            _report_early_cancellation(instance, run.run_id)
    return code


def _tune_instance(instance: DagsterInstance) -> None:
    """Reduce what this process's own instance costs: pool its connections, and do not echo the captured output."""
    pool_connections(instance, max_connections=MAX_CONNECTIONS)
    if isinstance(instance.compute_log_manager, LocalRunOutput):
        instance.compute_log_manager.echoes_output = False


def _try_lock_run(run_id: str, folder: Path) -> bool:
    """Take the run's lock until this process exits; return whether it was free."""
    # Keep the file open: closing it would release the lock.
    file = (folder / RUN_LOCKS_FILE).open("ab")
    offset = int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:7])
    try:
        fcntl.lockf(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
    except BlockingIOError:
        return False
    _held_lock_files.append(file)
    return True


def _report_early_cancellation(instance: DagsterInstance, run_id: str) -> None:
    """Report a run as canceled if it was canceled while it started: Dagster then executes and reports nothing."""
    run = instance.get_run_by_id(run_id)
    if run is not None and run.status is DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, "The run was canceled before any of its ops started.")


def main() -> None:
    """Execute the run that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m seedtrust_ops.launcher.run_worker", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the launcher's folder")
    parser.add_argument("arguments", help="the serialized arguments of `dagster api execute_run`")
    options = parser.parse_args()
    sys.exit(execute_run(options.arguments, options.folder))


if __name__ == "__main__":
    main()
