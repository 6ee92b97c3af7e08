"""Starts again what dies of the outside world and the embedded database while `dev` runs, as vendors' own people do.

Our own processes are the supervisor's; the database is looked after only where `dev` started it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import SubprocessError
from threading import Event, Thread

import psutil

from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.sandbox.stack import World
from seedtrust_ops.supervisor.program import Say

LOOK_SECONDS = 0.5


@contextmanager
def taken_care_of(world: World, database: Path | None, say: Say) -> Iterator[None]:
    """Look after the servers of `world`, and the embedded database in folder `database`, until the block ends."""
    ending = Event()

    def look() -> None:
        while not ending.wait(LOOK_SECONDS):
            try:
                if database is not None and not embedded_postgres.is_running(database):
                    embedded_postgres.start(database)
                    say("sandbox", "The embedded database had died and was started again.")
                for what in world.revive():
                    say("sandbox", f"{what} had died and was started again.")
            except (RuntimeError, OSError, SubprocessError, psutil.Error) as error:
                say("sandbox", f"{error} It is tried again.")

    thread = Thread(target=look, name="caretaker")
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
