"""Restarts sandbox servers and the embedded database if they crash while `dev` runs, as a real vendor would.

The supervisor restarts our own processes. The database is restarted only if `dev` started it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import SubprocessError
from threading import Event, Thread

import psutil

from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.sandbox.stack import SandboxStack
from seedtrust_ops.supervisor.program import PrintLine

CHECK_SECONDS = 0.5


@contextmanager
def restart_stopped_servers(stack: SandboxStack, database: Path | None, print_line: PrintLine) -> Iterator[None]:
    """Restart the servers of `stack`, and the embedded database in folder `database`, until the block ends."""
    ending = Event()

    def restart_loop() -> None:
        while not ending.wait(CHECK_SECONDS):
            try:
                if database is not None and not embedded_postgres.is_running(database):
                    embedded_postgres.start(database)
                    print_line("sandbox", "The embedded database stopped unexpectedly and was restarted.")
                for server in stack.restart_stopped():
                    print_line("sandbox", f"{server} stopped unexpectedly and was restarted.")
            except (RuntimeError, OSError, SubprocessError, psutil.Error) as error:
                print_line("sandbox", f"A restart failed and will be retried: {error}")

    thread = Thread(target=restart_loop, name="auto-restart")
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
