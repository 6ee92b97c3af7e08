"""The faults that a worker can meet at a step: a crash, a freeze, a lost connection, or a database error.

The fault is given the resource that the step uses, for example a database connection. If it returns a SQL statement,
that statement runs in place of the product's.
"""

import os
import signal
import threading
from collections.abc import Callable
from enum import StrEnum
from multiprocessing.connection import Connection
from typing import Any

import psycopg

CRASH_EXIT_STATUS = 86
"""The exit status of a worker that crashed at its injection point; no other ending uses it."""

# PostgreSQL's documentation, appendix A.
SERIALIZATION_FAILURE, DEADLOCK_DETECTED, DISK_FULL = "40001", "40P01", "53100"


class Fault(StrEnum):
    """The kinds of fault."""

    CRASH = "crash"
    FREEZE = "freeze"
    PAUSE = "pause"
    """Report the injection point and wait until the test lets the worker continue; the test acts in between."""
    DISCONNECT = "disconnect"
    SERIALIZATION = "serialization"
    DEADLOCK = "deadlock"
    DISK_FULL = "disk full"


def build_fault(fault: Fault, database: str, pipe: Connection) -> Callable[[Any], Any]:
    """Return the function that injects `fault`.

    Args:
        fault: the kind of fault.
        database: the URL of the database whose connections `DISCONNECT` ends.
        pipe: the connection to the test, for `PAUSE`.
    """

    def crash(_: Any) -> None:
        # No cleanup of any kind, as after SIGKILL.
        os._exit(CRASH_EXIT_STATUS)

    def freeze(_: Any) -> None:
        # Sent to this thread, not to the process: another thread could take the signal late, and this one would go on.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    def pause(_: Any) -> None:
        pipe.send("paused")
        pipe.recv()

    def disconnect(connection: psycopg.Connection[Any]) -> None:
        with psycopg.connect(database, autocommit=True) as other:
            # Waits until the backend has ended, at most 5 s.
            other.execute("select pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])

    return {
        Fault.CRASH: crash,
        Fault.FREEZE: freeze,
        Fault.PAUSE: pause,
        Fault.DISCONNECT: disconnect,
        Fault.SERIALIZATION: lambda connection: connection.execute(_failing_statement(SERIALIZATION_FAILURE)),
        Fault.DEADLOCK: lambda connection: connection.execute(_failing_statement(DEADLOCK_DETECTED)),
        Fault.DISK_FULL: lambda _: _failing_statement(DISK_FULL),
    }[fault]


def _failing_statement(sqlstate: str) -> str:
    """A statement that the server itself fails with this code; the transaction is lost as after the real error."""
    return f"do $$ begin raise exception 'refused by the test' using errcode = '{sqlstate}'; end $$"
