"""The programs of a worker (run host, code server, Dagster daemon), and the web server of a laptop.

The daemon uses the code server over gRPC: with a `python_module` workspace it would start a new one every minute
(dagster issue 32677). How programs are run is in `supervisor`.
See docs/decisions/deployment.md and docs/decisions/code-server-socket.md.
"""

import fcntl
import hashlib
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from seedtrust_ops.errors import ConfigurationError, SeedTrustError
from seedtrust_ops.launcher.host_client import LAUNCHER_FOLDER, is_serving
from seedtrust_ops.launcher.private_folder import make_private_folder
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
CODE_SERVER_SOCKET = "code_server.socket"
MAX_SOCKET_PATH_BYTES = 103
"""What macOS allows; Linux allows 107."""


class WorkerAlreadyRunning(SeedTrustError):
    """A worker with the same DAGSTER_HOME is already running."""


def find_free_port() -> int:
    """Return a free port of the loopback interface."""
    with closing(socket.socket()) as listener:
        listener.bind((LOOPBACK, 0))
        port: int = listener.getsockname()[1]
        return port


def prepare_code_server_socket(folder: Path) -> Path:
    """Return the path of the socket for the code server of the worker's `folder`, in a folder that is private and empty
    of old sockets. Only the process that holds the worker's lock may call this.

    It is the same path each time, because a web server reads the workspace only at its start and must find the next
    worker's code server. A socket's path is short; if the worker's folder is too deep, the temporary folder has one.

    Raises:
        ConfigurationError: if the folder belongs to another user, or no short path can be made.
    """
    if not _fits_a_socket(folder):
        name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"seedtrust-ops-{name}"
        if not _fits_a_socket(folder):
            raise ConfigurationError(
                f"DAGSTER_HOME and TMPDIR are too long for the path of a socket ({MAX_SOCKET_PATH_BYTES} bytes), or "
                "contain one of the characters # ? %. Set one of them to another folder."
            )
    make_private_folder(folder)
    for file in folder.iterdir():
        if file.is_socket():
            file.unlink()
    return folder / CODE_SERVER_SOCKET


def _fits_a_socket(folder: Path) -> bool:
    path = folder.absolute() / CODE_SERVER_SOCKET
    # gRPC reads the path as part of a URL.
    return len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES and not set("#?%").intersection(str(path))


def is_listening(address: int | Path) -> bool:
    """Return whether a process accepts connections at the address: a port of loopback, or the path of a unix socket."""
    is_port = isinstance(address, int)
    with closing(socket.socket(socket.AF_INET if is_port else socket.AF_UNIX)) as connection:
        connection.settimeout(1.0)
        return connection.connect_ex((LOOPBACK, address) if is_port else str(address)) == 0


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


def build_code_server(environment: Mapping[str, str], socket_path: Path) -> Program:
    """Return the process that loads and serves the definitions; it listens once everything is loaded.

    Anyone who reaches it can run any code, so the folder of `socket_path` must be private.
    """
    return Program(
        name="code-server",
        command=(
            *(sys.executable, "-m", "dagster", "code-server", "start", "-m", DEFINITIONS),
            *("--socket", str(socket_path), "--log-level", "warning", "--location-name", "seedtrust_ops"),
            *("--max-workers", str(MAX_CONCURRENT_CALLS)),
        ),
        # The server that accepts calls starts a child that handles them. It passes none of its options to the child,
        # which listens on a socket of its own in the temporary folder.
        environment={
            **environment,
            "DAGSTER_CLI_API_GRPC_MAX_WORKERS": str(MAX_CONCURRENT_CALLS),
            "TMPDIR": str(socket_path.parent),
        },
        stop_seconds=RUN_FINISH_SECONDS,
        # The server that accepts calls is only a proxy for that child.
        needs_child=True,
        is_ready=lambda: is_listening(socket_path),
    )


def build_daemon(environment: Mapping[str, str], workspace: Path) -> Program:
    """Return Dagster's daemon with shorter intervals: schedules, sensors and the run queue."""
    return Program(
        name="daemon",
        command=(sys.executable, "-m", "seedtrust_ops.supervisor.fast_daemon", "--workspace", str(workspace)),
        environment=environment,
    )


def build_web_server(environment: Mapping[str, str], workspace: Path, port: int) -> Program:
    """Return the web server of the Dagster UI, for this machine only because it has no login."""
    return Program(
        name="web",
        command=(
            *(sys.executable, "-m", "seedtrust_ops.cli.main", "web", "--workspace", str(workspace)),
            *("--host", LOOPBACK, "--port", str(port)),
        ),
        environment=environment,
        is_ready=lambda: is_listening(port),
    )


def write_workspace(folder: Path, socket_path: Path) -> Path:
    """Write a workspace that names the code server at `socket_path` into `folder`; return the file."""
    path = folder / WORKSPACE_FILE
    # Replaced atomically: a web server that starts at the same time must not read half of it.
    new = path.with_suffix(".new")
    new.write_text(
        "load_from:\n"
        "  - grpc_server:\n"
        f"      socket: {json.dumps(str(socket_path))}\n"
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
    make_private_folder(folder)
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


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
