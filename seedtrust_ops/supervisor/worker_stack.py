"""The programs of a worker (run host, code server, Dagster daemon), and the web server of a laptop.

The daemon uses the code server over gRPC: with a `python_module` workspace it would start a new one every minute
(dagster issue 32677). How programs are run is in `supervisor`.
See docs/decisions/deployment.md.
"""

import fcntl
import os
import re
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.launcher.host_client import LAUNCHER_FOLDER, is_serving
from seedtrust_ops.supervisor.program import Program

LOOPBACK = "127.0.0.1"
RUN_FINISH_SECONDS = 45.0
"""How long current runs may take to finish when the worker shuts down."""
INTERRUPT_GRACE_SECONDS = 20.0
"""How long runs that did not finish in time may take after that to release what they hold and exit."""
LOCK_TIMEOUT_SECONDS = 30.0
MAX_CONCURRENT_CALLS = 32
"""How many calls the code server handles concurrently: all of the daemon's sensors and schedules (`num_workers` in
dagster.yaml, twice), the web server's calls, and a run's start, so that none is stuck behind a long-polling sensor."""
DEFINITIONS = "seedtrust_ops.definitions"
WORKSPACE_FILE = "workspace.yaml"


class WorkerAlreadyRunning(SeedTrustError):
    """A worker with the same DAGSTER_HOME is already running."""


def find_free_port() -> int:
    """Return a free port of the loopback interface."""
    with closing(socket.socket()) as listener:
        listener.bind((LOOPBACK, 0))
        port: int = listener.getsockname()[1]
        return port


def choose_code_server_port(folder: Path) -> int:
    """Return the port in the last worker's workspace in `folder`, or another one if that is not available.

    A web server reads the workspace only at its start; with the same port it also finds the next worker's code server.
    """
    workspace = folder / WORKSPACE_FILE
    named = re.search(r"^ +port: (\d+)$", workspace.read_text(), re.MULTILINE) if workspace.is_file() else None
    return int(named[1]) if named is not None and _is_free(int(named[1])) else find_free_port()


def is_listening(port: int) -> bool:
    """Return whether a process on the loopback interface accepts connections at `port`."""
    with closing(socket.socket()) as connection:
        connection.settimeout(1.0)
        return connection.connect_ex((LOOPBACK, port)) == 0


def build_run_host(environment: Mapping[str, str], home: Path) -> tuple[Program, ...]:
    """Return the run host of DAGSTER_HOME `home`, so that runs survive restarts of the others; Linux only."""
    if sys.platform != "linux":
        return ()
    folder = home / LAUNCHER_FOLDER
    program = Program(
        name="run-host",
        command=(
            *(sys.executable, "-m", "seedtrust_ops.launcher.run_host", "--keep", "--folder", str(folder)),
            *("--run-seconds", f"{RUN_FINISH_SECONDS:g}", "--warm", DEFINITIONS),
        ),
        environment=environment,
        stop_seconds=RUN_FINISH_SECONDS + INTERRUPT_GRACE_SECONDS,
        # Its children are the runs. If it crashes, launchers start their own run host in the meantime.
        children_may_finish=True,
        is_ready=lambda: folder.is_dir() and is_serving(folder),
    )
    return (program,)


def build_code_server(environment: Mapping[str, str], port: int) -> Program:
    """Return the process that loads and serves the definitions; it listens once everything is loaded."""
    return Program(
        name="code-server",
        command=(
            *(sys.executable, "-m", "dagster", "code-server", "start", "-m", DEFINITIONS),
            *("--host", LOOPBACK, "--port", str(port), "--log-level", "warning", "--location-name", "seedtrust_ops"),
            *("--max-workers", str(MAX_CONCURRENT_CALLS)),
        ),
        # The server that accepts calls starts a child that handles them, and passes none of its options to the child.
        environment={**environment, "DAGSTER_CLI_API_GRPC_MAX_WORKERS": str(MAX_CONCURRENT_CALLS)},
        stop_seconds=RUN_FINISH_SECONDS,
        # The server that accepts calls is only a proxy for that child.
        needs_child=True,
        is_ready=lambda: is_listening(port),
    )


def build_daemon(environment: Mapping[str, str], workspace: Path) -> Program:
    """Return Dagster's daemon with shorter intervals: schedules, sensors and the run queue."""
    return Program(
        name="daemon",
        command=(sys.executable, "-m", "seedtrust_ops.supervisor.fast_daemon", "--workspace", str(workspace)),
        environment=environment,
    )


def build_web_server(environment: Mapping[str, str], workspace: Path, port: int) -> Program:
    """Return Dagster's web server, for this machine only because it has no login."""
    return Program(
        name="web",
        command=(
            *(sys.executable, "-m", "dagster_webserver", "--workspace", str(workspace)),
            *("--host", LOOPBACK, "--port", str(port)),
        ),
        environment=environment,
        is_ready=lambda: is_listening(port),
    )


def write_workspace(folder: Path, port: int) -> Path:
    """Write a workspace that names the code server at `port` into `folder`; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / WORKSPACE_FILE
    # Replaced atomically: a web server that starts at the same time must not read half of it.
    new = path.with_suffix(".new")
    new.write_text(
        "load_from:\n"
        "  - grpc_server:\n"
        f"      host: {LOOPBACK}\n"
        f"      port: {port}\n"
        "      location_name: seedtrust_ops\n"
    )
    new.replace(path)
    return path


@contextmanager
def hold_worker_lock(folder: Path) -> Iterator[int]:
    """Hold the lock of the one worker of a DAGSTER_HOME until the block ends; yield the lock file's descriptor.

    The process guards hold it too: if a worker was killed, the next one waits until the first one's daemon has exited.

    Raises:
        WorkerAlreadyRunning: if another worker holds the lock for LOCK_TIMEOUT_SECONDS.
    """
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    with (folder / "lock").open("a+") as file:
        while not _try_lock(file.fileno()):
            if time.monotonic() >= deadline:
                file.seek(0)
                raise WorkerAlreadyRunning(
                    f"A worker is already running for {folder.parent.parent} (process "
                    f"{file.read().strip() or 'unknown'}). Two daemons must not run at the same time. Stop that worker "
                    "first."
                )
            time.sleep(0.2)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield file.fileno()


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as listener:
        # Connections of the last worker that are still closing do not prevent listening.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
