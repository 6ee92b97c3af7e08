"""The zygote: a process that has loaded Dagster and one code location, and forks a run's worker for each request.

It keeps no thread and no connection, and executes no run itself. `run_host` starts it and talks to it over an inherited
socket, one JSON object a line; it exits when that socket closes.
See docs/decisions/warm-launcher.md.
"""

import argparse
import gc
import importlib
import json
import logging
import os
import signal
import socket
import warnings
from pathlib import Path
from typing import IO, Any

import dagster as dg
from sqlalchemy import create_engine

import seedtrust_ops.dagster_instance  # noqa: F401  every run needs the classes that dagster.yaml names
from seedtrust_ops.config import replace_environment
from seedtrust_ops.dagster_internals import (
    EARLY_IMPORTS,
    WARM_LAUNCHER,
    _inject_local_env_file,
    import_modules_of,
    is_available,
    load_python_module,
)
from seedtrust_ops.launcher.code_fingerprint import CodeFingerprint
from seedtrust_ops.launcher.forking import STOP_SIGNALS, find_fork_obstacle, fork_detached, freeze_heap
from seedtrust_ops.launcher.run_worker import execute_run

RUN_TIME_IMPORTS = (
    "psycopg2.extras",
    "seedtrust_ops.launcher.warm_run_launcher",
    "upath.implementations.local",
)
"""What the warm-up job does not import: the classes that `dagster.yaml` names, and what they use. Modules of Dagster
are in EARLY_IMPORTS."""


class Zygote:
    """Serves the run host until it closes the connection."""

    def __init__(self, channel: socket.socket, code: CodeFingerprint) -> None:
        self._channel = channel
        self._code = code

    def serve(self, requests: IO[str]) -> None:
        """Fork a worker for every request; respond with its pid, or with the reason why there is none."""
        for line in requests:
            send_message(self._channel, self._handle(json.loads(line)))

    def _handle(self, request: dict[str, Any]) -> dict[str, Any]:
        file = self._code.find_change()
        if file is not None:
            return {"stale": f"{file} changed since it was loaded"}
        try:
            return {"pid": fork_detached(lambda: self._run_worker(request))}
        except OSError as error:
            return {"failed": f"no process could be forked: {error}"}

    def _run_worker(self, request: dict[str, Any]) -> int:
        os.close(self._channel.detach())
        os.chdir(request["working_directory"])
        replace_environment(request["environment"])
        return execute_run(request["arguments"], Path(request["folder"]))


def send_message(channel: socket.socket, message: dict[str, Any]) -> None:
    """Send one message to the run host."""
    channel.sendall(json.dumps(message).encode() + b"\n")


def load_code_location(module_name: str, code_folder: str | None) -> None:
    """Load a code location's module as Dagster does, and build its repository, which each run would otherwise build."""
    with warnings.catch_warnings():
        # Each run that starts cold prints these warnings itself; a zygote's belong to no run.
        warnings.simplefilter("ignore")
        module = load_python_module(module_name, code_folder)
        for value in list(vars(module).values()):
            if isinstance(value, dg.Definitions):
                value.get_repository_def().load_all_definitions()


@dg.op(out=dg.Out(io_manager_key="io_manager"))
def warmup_op() -> None:
    """Do nothing."""


@dg.job(executor_def=dg.in_process_executor, resource_defs={"io_manager": dg.mem_io_manager})
def warmup_job() -> None:
    """Run the op that does nothing."""
    warmup_op()


def warm_up() -> None:
    """Import everything that runs import, by executing an empty job on an in-memory instance.

    It leaves no connection, file or thread open.
    """
    for name in RUN_TIME_IMPORTS:
        importlib.import_module(name)
    import_modules_of(EARLY_IMPORTS)
    # The first engine imports the dialect; this one never connects.
    create_engine("postgresql+psycopg2://")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        warmup_job.execute_in_process(run_config=quiet, instance=instance)


def main() -> None:
    """Load the code, report to the run host whether this process can be forked, and serve."""
    gc.disable()
    parser = argparse.ArgumentParser(prog="python -m seedtrust_ops.launcher.zygote", description=__doc__)
    parser.add_argument("--channel", type=int, required=True, help="the socket's descriptor")
    parser.add_argument("--started-ns", type=int, required=True, help="a UNIX time before this process started")
    parser.add_argument("--module", required=True, help="the code location's module")
    parser.add_argument("--code-folder", help="the folder from which Dagster loads the module")
    options = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    channel = socket.socket(fileno=options.channel)
    if not is_available(WARM_LAUNCHER):
        send_message(channel, {"unfit": "the installed version of Dagster lacks what a warm start needs"})
        return
    with _inject_local_env_file(logging.getLogger("dagster")):
        load_code_location(options.module, options.code_folder)
    warm_up()
    code = CodeFingerprint.of_current_process(options.module, Path.cwd())
    if file := code.find_change_since(options.started_ns):
        send_message(channel, {"stale": f"{file} changed while it was loaded"})
    elif reason := find_fork_obstacle(allowed_descriptor=options.channel):
        send_message(channel, {"unfit": reason})
    else:
        freeze_heap()
        send_message(channel, {"ready": os.getpid()})
        Zygote(channel, code).serve(channel.makefile("r", encoding="utf-8"))


if __name__ == "__main__":
    main()
