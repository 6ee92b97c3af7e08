"""What can befall a worker at a step: it dies, is frozen, loses its connection, or is refused by the server.

A strike is given the means by which the step is taken, a database connection for one. What it returns is run in
place of the statement that was about to be.
"""

import os
import signal
import threading
from collections.abc import Callable
from enum import StrEnum
from multiprocessing.connection import Connection
from typing import Any

import psycopg

DIED = 86
"""The exit status of a worker that died at its moment, which nothing else ends with."""

# PostgreSQL's documentation, appendix A.
SERIALIZATION_FAILURE, DEADLOCK_DETECTED, DISK_FULL = "40001", "40P01", "53100"


class Strike(StrEnum):
    """The kinds of strike."""

    DIE = "die"
    FREEZE = "freeze"
    TELL = "tell"
    """Say so, and wait for leave to go on: what happens meanwhile is the test's business."""
    SEVER = "sever"
    SERIALIZATION = "serialization"
    DEADLOCK = "deadlock"
    DISK_FULL = "disk full"


def prepare(strike: Strike, database: str, line: Connection) -> Callable[[Any], Any]:
    """Return what carries out `strike`; `line` leads to the test, `database` is where connections are ended."""

    def die(_: Any) -> None:
        # No clean-up of any kind, as after SIGKILL.
        os._exit(DIED)

    def freeze(_: Any) -> None:
        # To this thread and not to the process, whose other threads may be slow to take it: this one would go on.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    def tell(_: Any) -> None:
        line.send("here")
        line.recv()

    def sever(connection: psycopg.Connection[Any]) -> None:
        with psycopg.connect(database, autocommit=True) as other:
            # Until it is gone, or 5 s at the most.
            other.execute("select pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])

    return {
        Strike.DIE: die,
        Strike.FREEZE: freeze,
        Strike.TELL: tell,
        Strike.SEVER: sever,
        Strike.SERIALIZATION: lambda connection: connection.execute(_refusal(SERIALIZATION_FAILURE)),
        Strike.DEADLOCK: lambda connection: connection.execute(_refusal(DEADLOCK_DETECTED)),
        Strike.DISK_FULL: lambda _: _refusal(DISK_FULL),
    }[strike]


def _refusal(sqlstate: str) -> str:
    """A statement that the server itself refuses with this code; the transaction is lost as by the real error."""
    return f"do $$ begin raise exception 'refused by the test' using errcode = '{sqlstate}'; end $$"
