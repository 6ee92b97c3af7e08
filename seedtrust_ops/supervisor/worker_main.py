"""Runs the worker in this process until it is asked to stop, and prints the output of its programs.

`worker_stack` defines the programs, `supervisor` runs them.
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
from seedtrust_ops.supervisor.crash_alerts import record_crash_alerts
from seedtrust_ops.supervisor.program import PrintLine
from seedtrust_ops.supervisor.supervisor import Supervisor
from seedtrust_ops.supervisor.worker_stack import (
    build_code_server,
    build_daemon,
    build_run_host,
    hold_worker_lock,
    prepare_code_server_socket,
    write_workspace,
)

WORKER_FOLDER = Path(".seedtrust") / "worker"


def run_worker(home: Path, environment: Mapping[str, str]) -> None:
    """Run the run host, the code server and the daemon of DAGSTER_HOME `home` until SIGTERM or SIGINT.

    Raises:
        WorkerAlreadyRunning: if a worker of the same home is running.
        ConfigurationError: if its folder belongs to another user.
    """
    folder = home / WORKER_FOLDER
    with hold_worker_lock(folder) as lock, stop_on_signals() as stop:
        socket_path = prepare_code_server_socket(folder)
        programs = [
            *build_run_host(environment, home),
            build_code_server(environment, socket_path),
            build_daemon(environment, write_workspace(folder, socket_path)),
        ]
        print_line = line_printer()
        with record_crash_alerts(application_url(), print_line) as crash_alerts:
            Supervisor(programs, print_line, observer=crash_alerts, lock=lock).run(stop)


@contextmanager
def stop_on_signals() -> Iterator[Event]:
    """Yield an event that SIGTERM and SIGINT set; the previous signal handlers are restored when the block ends."""
    stop = Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def line_printer() -> PrintLine:
    """Return a function that prints a program's line with the program's name before it, whole lines only.

    A line that cannot be written is lost: the supervisor must keep its programs running even if nothing reads its
    output.
    """
    lock = Lock()

    def print_line(name: str, line: str) -> None:
        with lock, suppress(OSError, ValueError):
            # Log lines can quote text from outside, and control characters could manipulate the terminal.
            sys.stdout.write(f"{name:<12}| {strip_control_chars(line)}\n")
            sys.stdout.flush()

    return print_line
