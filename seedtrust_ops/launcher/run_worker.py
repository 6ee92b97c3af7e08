"""The process of one run, forked from a zygote or started cold: takes the run's lock, then does what every worker does.

Run cold as `python -m seedtrust_ops.launcher.run_worker --folder FOLDER ARGUMENTS`, the arguments being those of
`dagster api execute_run`. Whoever starts it has SIGINT and SIGTERM blocked: none is lost before Dagster listens.
"""

import argparse
import fcntl
import hashlib
import signal
import sys
from pathlib import Path

from dagster import DagsterInstance, DagsterRunStatus
from dagster._cli.api import _execute_run_command_body
from dagster._cli.utils import get_instance_for_cli
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import deserialize_value
from dagster._utils.interrupts import capture_interrupts

from seedtrust_ops.launcher.forking import INTERRUPTS
from seedtrust_ops.launcher.warmup import spare
from seedtrust_ops.launcher.worker_identity import WorkerProcess

LOCKS = "runs.lock"
"""The file in the launcher's folder of which every run locks one byte."""


def work(arguments: str, folder: Path) -> int:
    """Execute the run that `arguments` (a serialized `ExecuteRunArgs`) names; return the process's exit code.

    A run that another process works on is left alone.
    """
    with capture_interrupts():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
        order = deserialize_value(arguments, ExecuteRunArgs)
        if not _locked(order.run_id, folder):
            sys.stderr.write(f"Run {order.run_id} has a worker already, so this process does nothing.\n")
            return 0
        with get_instance_for_cli(instance_ref=order.instance_ref) as instance:
            spare(instance)
            # The tag is there before the run's status is read: whoever cancels finds the worker, or the worker sees it.
            instance.add_run_tags(order.run_id, WorkerProcess.this_one().tags)
            code = _execute_run_command_body(
                order.run_id,
                instance,
                write_stream_fn=lambda _event: None,
                set_exit_code_on_failure=order.set_exit_code_on_failure or False,
            )
            _close_if_canceled(instance, order.run_id)
    return code


def _locked(run_id: str, folder: Path) -> bool:
    """Take the run's lock for as long as this process lives; return whether it was free."""
    # Not closed: closing it would give the lock back.
    file = (folder / LOCKS).open("ab")
    place = int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:7])
    try:
        fcntl.lockf(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except BlockingIOError:
        return False
    _kept_open.append(file)
    return True


_kept_open: list[object] = []


def _close_if_canceled(instance: DagsterInstance, run_id: str) -> None:
    """Report a run as canceled that was canceled while it started: Dagster then executes nothing and says nothing."""
    run = instance.get_run_by_id(run_id)
    if run is not None and run.status is DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, "The run was canceled before any of its ops began.")


def main() -> None:
    """Work on the run that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m seedtrust_ops.launcher.run_worker", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the launcher's folder")
    parser.add_argument("arguments")
    options = parser.parse_args()
    sys.exit(work(options.arguments, options.folder))


if __name__ == "__main__":
    main()
