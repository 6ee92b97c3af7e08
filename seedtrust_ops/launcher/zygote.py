"""The warm process: has loaded Dagster and one code location, and forks a run worker each time its run host asks.

It holds no thread and no connection, and executes nothing itself. Run by `run_host`, which talks to it over an
inherited socket, one JSON object a line; it ends when that socket closes.
"""

import argparse
import gc
import json
import logging
import os
import signal
import socket
import warnings
from pathlib import Path
from typing import IO, Any

import dagster as dg
from dagster._cli.utils import _inject_local_env_file
from dagster._core.code_pointer import load_python_module

import seedtrust_ops.dagster_instance  # noqa: F401  what dagster.yaml names is needed by every run
from seedtrust_ops.config import replace_environment
from seedtrust_ops.database.engine import application_engine
from seedtrust_ops.launcher.code_fingerprint import LoadedCode
from seedtrust_ops.launcher.forking import INTERRUPTS, fork_orphan, freeze, reason_not_to_fork
from seedtrust_ops.launcher.run_worker import work
from seedtrust_ops.launcher.warmup import rehearse


class Zygote:
    """Answers the run host until it hangs up."""

    def __init__(self, channel: socket.socket, code: LoadedCode) -> None:
        self._channel = channel
        self._code = code

    def serve(self, orders: IO[str]) -> None:
        """Fork a worker for every order; say its pid, or why there is none."""
        for line in orders:
            tell(self._channel, self._obey(json.loads(line)))

    def _obey(self, order: dict[str, Any]) -> dict[str, Any]:
        file = self._code.changed()
        if file is not None:
            return {"stale": f"{file} changed since it was loaded"}
        try:
            return {"pid": fork_orphan(lambda: self._become_worker(order))}
        except OSError as error:
            return {"failed": f"no process could be forked: {error}"}

    def _become_worker(self, order: dict[str, Any]) -> int:
        os.close(self._channel.detach())
        os.chdir(order["working_directory"])
        replace_environment(order["environment"])
        application_engine.cache_clear()
        return work(order["arguments"], Path(order["folder"]))


def tell(channel: socket.socket, message: dict[str, Any]) -> None:
    """Send one message to the run host."""
    channel.sendall(json.dumps(message).encode() + b"\n")


def load(module_name: str, code_folder: str | None) -> None:
    """Load a code location's module as Dagster does, and make its repository, which every run would make anew."""
    with warnings.catch_warnings():
        # Each run that is started cold says them too; a zygote's would be in nobody's run.
        warnings.simplefilter("ignore")
        module = load_python_module(module_name, code_folder)
        for value in list(vars(module).values()):
            if isinstance(value, dg.Definitions):
                value.get_repository_def().load_all_definitions()


def main() -> None:
    """Load, tell the run host whether this process is fit to be forked, and serve."""
    gc.disable()
    parser = argparse.ArgumentParser(prog="python -m seedtrust_ops.launcher.zygote", description=__doc__)
    parser.add_argument("--channel", type=int, required=True, help="the socket's descriptor")
    parser.add_argument("--began", type=int, required=True, help="a time before this process began (UNIX, nanoseconds)")
    parser.add_argument("--module", required=True, help="the code location's module")
    parser.add_argument("--code-folder", help="the folder that Dagster loads the module from")
    options = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
    channel = socket.socket(fileno=options.channel)
    with _inject_local_env_file(logging.getLogger("dagster")):
        load(options.module, options.code_folder)
    rehearse()
    code = LoadedCode.of_this_process(options.module, Path.cwd())
    if file := code.changed_since(options.began):
        tell(channel, {"stale": f"{file} changed while it was loaded"})
    elif reason := reason_not_to_fork(own=options.channel):
        tell(channel, {"unfit": reason})
    else:
        freeze()
        tell(channel, {"ready": os.getpid()})
        Zygote(channel, code).serve(channel.makefile("r", encoding="utf-8"))


if __name__ == "__main__":
    main()
