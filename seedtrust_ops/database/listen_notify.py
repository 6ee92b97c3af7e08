"""Waits in the database until somebody commits what is waited for: by LISTEN, or by a look every second without it.

The triggers of migration 0005 give the signals. What is looked at, and what to do about it, is the caller's.
"""

import selectors
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import psycopg
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

Outcome = TypeVar("Outcome")

POLL_SECONDS = 1.0
STOP = "stop waiting"
"""What a signal carries when nothing happened and those who wait are asked to return."""


@dataclass(frozen=True)
class Signal:
    """A channel, and the trigger that must be there for anything to come over it."""

    channel: str
    trigger: str


BATCH_QUEUED = Signal("seedtrust_batch_queued", "seedtrust_ops_batch_queued")
REQUEST_PENDING = Signal("seedtrust_request_pending", "seedtrust_ops_request_pending")


class NotifyListener:
    """One wait's ear in the database; `why_polling` says why it must look every second instead, if it must."""

    def __init__(self, connection: Connection | None, why_polling: str | None) -> None:
        self._connection = connection
        self.why_polling = why_polling

    def wait(self, seconds: float) -> bool:
        """Return as soon as it is time to look again, at the latest after `seconds`; False when asked to stop."""
        if self._connection is None or self.why_polling is not None:
            time.sleep(min(seconds, POLL_SECONDS))
            return True
        driver = _driver(self._connection)
        try:
            heard = _heard(driver, seconds)
        except psycopg.Error as error:
            self.why_polling = f"the listening connection was lost ({type(error).__name__})"
            self._connection.invalidate()
            return True
        return not any(notice.payload == STOP for notice in heard)


@contextmanager
def listening(engine: Engine, signal: Signal) -> Iterator[NotifyListener]:
    """Yield a bell that rings at every signal committed from now on: look first, then wait for it.

    It has a connection of its own while the block lasts, beside the engine's pool. Where none is to be had, where
    the trigger is missing, or where a pooler stands between, which may hand the signals to somebody else, the bell
    polls.
    """
    try:
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    except DBAPIError as error:
        yield NotifyListener(None, f"no connection is to be had for listening ({type(error.orig).__name__})")
        return
    with connection:
        # Out of the pool, which may fill its place: nobody else is ever given a connection that listens.
        connection.detach()
        yield NotifyListener(connection, _why_polling(connection, signal))


def wait_until_found(
    look: Callable[[], Outcome],
    found: Callable[[Outcome], bool],
    bell: NotifyListener,
    *,
    seconds: float,
    rest: float = 0.0,
) -> Outcome:
    """Look, and look again whenever the bell rings, until the outcome is what is waited for.

    Args:
        look: what to do at each ring; what it raises ends the wait.
        found: whether an outcome ends the wait.
        bell: from `listening`, entered before the first look, so that nothing is missed between the two.
        seconds: the longest wait.
        rest: after a look in vain there is none for so many times the look's own length.

    Returns:
        What the last look returned.
    """
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        outcome = look()
        ended = time.monotonic()
        next_look = ended + rest * (ended - began)
        if found(outcome) or next_look >= deadline or not bell.wait(deadline - ended):
            return outcome
        time.sleep(max(0.0, min(next_look, deadline) - time.monotonic()))
        if time.monotonic() >= deadline:
            return outcome


def stop_waiting(engine: Engine, signal: Signal) -> None:
    """Ask all who wait for the signal to return."""
    with engine.begin() as connection:
        connection.execute(text("select pg_notify(:channel, :payload)"), {"channel": signal.channel, "payload": STOP})


def _why_polling(connection: Connection, signal: Signal) -> str | None:
    try:
        connection.exec_driver_sql(f'listen "{signal.channel}"')
        server_process, has_trigger = connection.execute(
            text(
                "select pg_backend_pid(),"
                " exists (select from pg_trigger where tgname = :trigger and tgenabled in ('O', 'A'))"
            ),
            {"trigger": signal.trigger},
        ).one()
    except DBAPIError as error:
        return f"LISTEN was refused ({type(error.orig).__name__})"
    if not has_trigger:
        return f"trigger {signal.trigger} is missing; `seedtrust-ops migrate` makes it"
    if _driver(connection).info.backend_pid != server_process:
        return "a connection pooler stands before the database"
    return None


def _heard(driver: psycopg.Connection, seconds: float) -> list[psycopg.Notify]:
    heard = list(driver.notifies(timeout=0))
    if not heard:
        # The driver's own wait wakes up ten times a second, in each of the sensors that wait all day.
        with selectors.DefaultSelector() as selector:
            selector.register(driver, selectors.EVENT_READ)
            selector.select(seconds)
        heard = list(driver.notifies(timeout=0))
    return heard


def _driver(connection: Connection) -> psycopg.Connection:
    # A connection that was taken out of its pool has no other name for the driver's.
    return cast("psycopg.Connection", connection.connection.dbapi_connection)
