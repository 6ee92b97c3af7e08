"""What production runs beside the web server: run host, code server and Dagster daemon; and laptops' web server.

The daemon gets the code server over gRPC: with a `python_module` workspace it would start a new one every
minute (dagster issue 32677).
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
from seedtrust_ops.launcher.host_socket import LAUNCHER_FOLDER, is_answered
from seedtrust_ops.supervisor.program import Program

LOOPBACK = "127.0.0.1"
RUN_SECONDS = 45.0
"""How long runs under way may take to finish when the worker is stopped."""
INTERRUPTED_SECONDS = 20.0
"""How long it may take then until runs that did not finish have given back what they hold, and are gone."""
LOCK_SECONDS = 30.0
CALLS_AT_ONCE = 32
"""How many calls the code server answers side by side: all of the daemon's sensors and schedules (`num_workers` in
dagster.yaml, twice), the web server's, and a run's start, so that none stands behind a sensor that waits."""
DEFINITIONS = "seedtrust_ops.definitions"
WORKSPACE = "workspace.yaml"


class AnotherWorker(SeedTrustError):
    """A worker with the same DAGSTER_HOME runs already."""


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with closing(socket.socket()) as listener:
        listener.bind((LOOPBACK, 0))
        port: int = listener.getsockname()[1]
        return port


def code_server_port(folder: Path) -> int:
    """Return the port that the last worker's workspace in `folder` names, or another where that is not to be had.

    A web server reads the workspace once, at its start, and so finds the code server of the next worker too.
    """
    workspace = folder / WORKSPACE
    named = re.search(r"^ +port: (\d+)$", workspace.read_text(), re.MULTILINE) if workspace.is_file() else None
    return int(named[1]) if named is not None and _is_free(int(named[1])) else free_port()


def is_listening(port: int) -> bool:
    """Return whether somebody on the loopback interface takes connections at `port`."""
    with closing(socket.socket()) as caller:
        caller.settimeout(1.0)
        return caller.connect_ex((LOOPBACK, port)) == 0


def run_host(environment: Mapping[str, str], home: Path) -> tuple[Program, ...]:
    """The parent of the runs of DAGSTER_HOME `home`, which no restart of the others concerns; none but on Linux."""
    if sys.platform != "linux":
        return ()
    folder = home / LAUNCHER_FOLDER
    program = Program(
        name="run-host",
        command=(
            *(sys.executable, "-m", "seedtrust_ops.launcher.run_host", "--keep", "--folder", str(folder)),
            *("--run-seconds", f"{RUN_SECONDS:g}", "--warm", DEFINITIONS),
        ),
        environment=environment,
        stop_seconds=RUN_SECONDS + INTERRUPTED_SECONDS,
        # Its children are the runs. Launchers that find it dead start one of their own meanwhile.
        children_may_finish=True,
        is_ready=lambda: folder.is_dir() and is_answered(folder),
    )
    return (program,)


def code_server(environment: Mapping[str, str], port: int) -> Program:
    """The one process that has loaded the definitions, and answers for them; it listens when all is loaded."""
    return Program(
        name="code-server",
        command=(
            *(sys.executable, "-m", "dagster", "code-server", "start", "-m", DEFINITIONS),
            *("--host", LOOPBACK, "--port", str(port), "--log-level", "warning", "--location-name", "seedtrust_ops"),
            *("--max-workers", str(CALLS_AT_ONCE)),
        ),
        # The server that callers see starts the one that works, and hands on no option of its own to that one.
        environment={**environment, "DAGSTER_CLI_API_GRPC_MAX_WORKERS": str(CALLS_AT_ONCE)},
        stop_seconds=RUN_SECONDS,
        # The server that callers see only stands before the one that works.
        needs_child=True,
        is_ready=lambda: is_listening(port),
    )


def daemon(environment: Mapping[str, str], workspace: Path) -> Program:
    """Dagster's daemon, turning faster: schedules, sensors and the run queue."""
    return Program(
        name="daemon",
        command=(sys.executable, "-m", "seedtrust_ops.supervisor.fast_daemon", "--workspace", str(workspace)),
        environment=environment,
    )


def web_server(environment: Mapping[str, str], workspace: Path, port: int) -> Program:
    """Dagster's web server, for this machine alone: it has no login."""
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
    """Write the workspace that names our code server into `folder`; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / WORKSPACE
    # Put in place whole: a web server that starts at the same time must not read half of it.
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
def only_worker(folder: Path) -> Iterator[int]:
    """Hold the lock that one worker of a DAGSTER_HOME has, for as long as the block lasts; yields its descriptor.

    The keepers hold it too: where a worker was killed, the next one waits until the first one's daemon is gone.

    Raises:
        AnotherWorker: when another one holds it for half a minute.
    """
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_SECONDS
    with (folder / "lock").open("a+") as file:
        while not _locked(file.fileno()):
            if time.monotonic() >= deadline:
                file.seek(0)
                raise AnotherWorker(
                    f"A worker runs already for {folder.parent.parent} (process {file.read().strip() or 'unknown'}), "
                    "and two daemons must not run side by side. Stop that one first."
                )
            time.sleep(0.2)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield file.fileno()


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as listener:
        # Connections of the last worker that wind down keep nobody from listening.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
