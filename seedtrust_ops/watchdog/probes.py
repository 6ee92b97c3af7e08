"""Queries both databases with a deadline, so that a hanging database cannot block the watchdog or `status`.

It returns facts; `evaluator` decides what is an incident. It never starts the embedded PostgreSQL server.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from seedtrust_ops.config import get_settings
from seedtrust_ops.dagster_db.daemon_activity import AutomationTicks, read_heartbeats, read_ticks
from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.database.engine import APPLICATION_DATABASE, DAGSTER_DATABASE, accept_every_value
from seedtrust_ops.errors import SeedTrustError

CONNECT_SECONDS = 5
STATEMENT_SECONDS = 10
DEADLINE_SECONDS = 20.0
"""A frozen server, or one whose host is gone, respects neither of the two timeouts above."""

Result = TypeVar("Result")


class QueryFailed(Exception):
    """A database could not be reached, or did not respond in time."""


@dataclass(frozen=True)
class DagsterFacts:
    """Facts from Dagster's database: the last heartbeat (UTC) of each daemon that ever sent one, and all ticks."""

    heartbeats: Mapping[str, datetime]
    ticks: tuple[AutomationTicks, ...]


@dataclass(frozen=True)
class ProbeResult:
    """The result of one probe at `at` (UTC). An error is None if its database responded."""

    at: datetime
    application_error: str | None
    dagster_error: str | None
    dagster: DagsterFacts | None


class TimedQuery:
    """Runs queries on one database, each on its own connection, and stops waiting at a deadline."""

    def __init__(self, variable: str, url: Callable[[], URL], deadline_seconds: float = DEADLINE_SECONDS) -> None:
        """Create it.

        Args:
            variable: the environment variable of the database's URL, for messages.
            url: returns the URL; may raise SeedTrustError.
            deadline_seconds: the maximum time to wait for one query.
        """
        self._variable = variable
        self._url = url
        self._deadline_seconds = deadline_seconds
        self._pending: Future[Any] | None = None

    def run(self, query: Callable[[Connection], Result]) -> Result:
        """Run `query` in a transaction, commit it, and return its result.

        Raises:
            QueryFailed: if there is no result in time; the message contains no password.
        """
        if self._pending is None or self._pending.done():
            self._pending = Future()
            threading.Thread(target=self._run_in_thread, args=(query, self._pending), daemon=True).start()
        else:
            # The earlier query still hangs, and a second one would hang too.
            raise QueryFailed(self._timeout_message())
        try:
            result: Result = self._pending.result(self._deadline_seconds)
        except TimeoutError:
            raise QueryFailed(self._timeout_message()) from None
        except SeedTrustError as error:
            raise QueryFailed(str(error)) from None
        except SQLAlchemyError as error:
            reason = " ".join(str(getattr(error, "orig", None) or error).split()).rstrip(".?")
            raise QueryFailed(f"The database in {self._variable} is unavailable: {reason}.") from None
        return result

    def _run_in_thread(self, query: Callable[[Connection], Any], future: Future[Any]) -> None:
        try:
            engine = create_engine(
                self._url().set(drivername="postgresql+psycopg"),
                poolclass=NullPool,
                hide_parameters=True,
                connect_args={"connect_timeout": CONNECT_SECONDS, "application_name": "seedtrust-ops"},
            )
            accept_every_value(engine)
            with engine.begin() as connection:
                connection.execute(text(f"set local statement_timeout = '{STATEMENT_SECONDS}s'"))
                result = query(connection)
        except BaseException as error:  # noqa: BLE001  raised in the thread that waits for the result
            future.set_exception(error)
        else:
            future.set_result(result)

    def _timeout_message(self) -> str:
        return (
            f"The database in {self._variable} did not respond within {self._deadline_seconds:g} s. PostgreSQL, its "
            "machine or the network may be hanging."
        )


class Prober:
    """Probes both databases."""

    def __init__(self, *, grace_seconds: float, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        """Create it.

        Args:
            grace_seconds: how long, beyond two of its intervals, a schedule or sensor may go without a tick.
            deadline_seconds: the maximum time to wait for one database.
        """
        self._grace_seconds = grace_seconds
        self.application = TimedQuery("SEEDTRUST_DATABASE_URL", application_database_url, deadline_seconds)
        self.dagster = TimedQuery("DAGSTER_POSTGRES_URL", dagster_database_url, deadline_seconds)

    def probe(self) -> ProbeResult:
        """Probe both databases. It takes at most two deadlines, and no state of a database makes it raise."""
        application_error, dagster_error, facts = None, None, None
        try:
            self.application.run(lambda connection: connection.execute(text("select 1")).one())
        except QueryFailed as error:
            application_error = str(error)
        try:
            facts = self.dagster.run(self._read_facts)
        except QueryFailed as error:
            dagster_error = str(error)
        return ProbeResult(datetime.now(UTC), application_error, dagster_error, facts)

    def _read_facts(self, connection: Connection) -> DagsterFacts:
        location = get_settings().location
        ticks = read_ticks(
            connection,
            zone=ZoneInfo(location.timezone),
            dev_env=location.dev_env,
            now=datetime.now(UTC),
            grace_seconds=self._grace_seconds,
        )
        return DagsterFacts(read_heartbeats(connection), tuple(ticks))


class EmbeddedServerDown(SeedTrustError):
    """No database is configured, and the embedded PostgreSQL server is not running."""


def application_database_url() -> URL:
    """Return the URL of the application's database; raises `EmbeddedServerDown` instead of starting a server."""
    return get_settings().databases.application_url or _embedded_url(APPLICATION_DATABASE)


def dagster_database_url() -> URL:
    """Return the URL of Dagster's database; raises `EmbeddedServerDown` instead of starting a server."""
    return get_settings().databases.dagster_url or _embedded_url(DAGSTER_DATABASE)


def _embedded_url(name: str) -> URL:
    folder = get_settings().databases.embedded_directory
    server = embedded_postgres.get_running_url(folder)
    if server is None:
        raise EmbeddedServerDown(
            f"No database is configured, and the embedded PostgreSQL in {folder} is not running. Set "
            "SEEDTRUST_DATABASE_URL and DAGSTER_POSTGRES_URL, or start `seedtrust-ops dev` or `seedtrust-ops worker`."
        )
    return server.set(database=name)
