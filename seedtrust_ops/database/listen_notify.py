"""Waits until another transaction commits new work: by PostgreSQL LISTEN, or by polling every second if that fails.

The triggers of migration 0005 send the notifications. What to check, and what to do about it, is up to the caller.
See docs/decisions/long-poll-sensors.md.
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
"""The payload of a notification that asks all waiting processes to return; it announces no work."""


@dataclass(frozen=True)
class NotifyChannel:
    """A NOTIFY channel, and the trigger that sends on it."""

    name: str
    trigger: str


BATCH_QUEUED = NotifyChannel("seedtrust_batch_queued", "seedtrust_ops_batch_queued")
REQUEST_PENDING = NotifyChannel("seedtrust_request_pending", "seedtrust_ops_request_pending")


class NotifyListener:
    """One listening connection; if it cannot listen it polls every second, and `polling_reason` says why."""

    def __init__(self, connection: Connection | None, polling_reason: str | None) -> None:
        self._connection = connection
        self.polling_reason = polling_reason

    def wait(self, seconds: float) -> bool:
        """Return when it is time to check again, after `seconds` at the latest; False if asked to stop."""
        if self._connection is None or self.polling_reason is not None:
            time.sleep(min(seconds, POLL_SECONDS))
            return True
        driver = _driver_connection(self._connection)
        try:
            notifications = _receive(driver, seconds)
        except psycopg.Error as error:
            self.polling_reason = f"the listening connection was lost ({type(error).__name__})"
            self._connection.invalidate()
            return True
        return not any(notification.payload == STOP for notification in notifications)


@contextmanager
def listen(engine: Engine, channel: NotifyChannel) -> Iterator[NotifyListener]:
    """Yield a listener that receives every notification committed from now on: check first, then wait for it.

    It has its own connection until the block ends, outside the engine's pool. The listener polls if no connection is
    available, if the trigger is missing, or if a connection pooler, which can deliver the notifications to another
    client, is in between.
    """
    try:
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    except DBAPIError as error:
        yield NotifyListener(None, f"no connection was available for listening ({type(error.orig).__name__})")
        return
    with connection:
        # Take it out of the pool, so that no other code ever gets a connection that listens.
        connection.detach()
        yield NotifyListener(connection, _find_polling_reason(connection, channel))


def poll_until(
    check: Callable[[], Outcome],
    is_found: Callable[[Outcome], bool],
    listener: NotifyListener,
    *,
    seconds: float,
    cooldown_ratio: float = 0.0,
) -> Outcome:
    """Check now and after every notification, until the outcome is the one waited for or time is up.

    Args:
        check: what to do each time; an exception that it raises ends the wait.
        is_found: whether an outcome ends the wait.
        listener: from `listen`, entered before the first check, so that nothing is missed between the two.
        seconds: the maximum wait.
        cooldown_ratio: after a check that found nothing, pause for this many times its duration.

    Returns:
        The outcome of the last check.
    """
    deadline = time.monotonic() + seconds
    while True:
        started_at = time.monotonic()
        outcome = check()
        ended_at = time.monotonic()
        next_check_at = ended_at + cooldown_ratio * (ended_at - started_at)
        if is_found(outcome) or next_check_at >= deadline or not listener.wait(deadline - ended_at):
            return outcome
        time.sleep(max(0.0, min(next_check_at, deadline) - time.monotonic()))
        if time.monotonic() >= deadline:
            return outcome


def notify_stop(engine: Engine, channel: NotifyChannel) -> None:
    """Ask all processes that wait on the channel to return."""
    with engine.begin() as connection:
        connection.execute(text("select pg_notify(:channel, :payload)"), {"channel": channel.name, "payload": STOP})


def _find_polling_reason(connection: Connection, channel: NotifyChannel) -> str | None:
    try:
        connection.exec_driver_sql(f'listen "{channel.name}"')
        server_process, has_trigger = connection.execute(
            text(
                "select pg_backend_pid(),"
                " exists (select from pg_trigger where tgname = :trigger and tgenabled in ('O', 'A'))"
            ),
            {"trigger": channel.trigger},
        ).one()
    except DBAPIError as error:
        return f"LISTEN was rejected ({type(error.orig).__name__})"
    if not has_trigger:
        return f"trigger {channel.trigger} is missing (`seedtrust-ops migrate` creates it)"
    if _driver_connection(connection).info.backend_pid != server_process:
        return "a connection pooler is in front of the database"
    return None


def _receive(driver: psycopg.Connection, seconds: float) -> list[psycopg.Notify]:
    notifications = list(driver.notifies(timeout=0))
    if not notifications:
        # The driver's own wait wakes up ten times a second, in each of the sensors that wait all day.
        with selectors.DefaultSelector() as selector:
            selector.register(driver, selectors.EVENT_READ)
            selector.select(seconds)
        notifications = list(driver.notifies(timeout=0))
    return notifications


def _driver_connection(connection: Connection) -> psycopg.Connection:
    # For a connection outside its pool, SQLAlchemy has no other accessor for the driver's connection.
    return cast("psycopg.Connection", connection.connection.dbapi_connection)
