"""Runs the worker in this process until it is told to stop, printing what its programs say.

`worker` says what runs, `supervisor` how.
"""

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Lock
from types import FrameType

from seedtrust_ops.database.engine import application_url
from seedtrust_ops.formatting import strip_control_chars
from seedtrust_ops.supervisor.crash_alerts import tell_of_deaths
from seedtrust_ops.supervisor.program import Say
from seedtrust_ops.supervisor.supervisor import Supervisor
from seedtrust_ops.supervisor.worker_stack import (
    code_server,
    code_server_port,
    daemon,
    only_worker,
    run_host,
    write_workspace,
)

WORKER_FOLDER = Path(".seedtrust") / "worker"


def run_worker(home: Path, environment: Mapping[str, str]) -> None:
    """Run the run host, the code server and the daemon of DAGSTER_HOME `home` until SIGTERM or SIGINT.

    Raises:
        AnotherWorker: when a worker of the same home runs already.
    """
    folder = home / WORKER_FOLDER
    with only_worker(folder) as lock, told_to_stop() as stop:
        port = code_server_port(folder)
        programs = [
            *run_host(environment, home),
            code_server(environment, port),
            daemon(environment, write_workspace(folder, port)),
        ]
        say = print_line()
        with tell_of_deaths(application_url(), say) as deaths:
            Supervisor(programs, say, observer=deaths, lock=lock).run(stop)


@contextmanager
def told_to_stop() -> Iterator[Event]:
    """Yield an event that is set by SIGTERM or SIGINT; the signals mean what they did before when the block ends."""
    stop = Event()

    def hear(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {sign: signal.signal(sign, hear) for sign in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


def print_line() -> Say:
    """Return what prints a program's line with its name before it, whole lines only.

    A line that can't be written is lost: whoever prints has programs to keep, and must not end for want of a reader.
    """
    lock = Lock()

    def say(name: str, line: str) -> None:
        with lock, suppress(OSError, ValueError):
            # What runs log may quote anybody, and this is somebody's terminal.
            sys.stdout.write(f"{name:<12}| {strip_control_chars(line)}\n")
            sys.stdout.flush()

    return say
