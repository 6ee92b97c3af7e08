"""Asks both databases with a deadline, so that one that hangs stops nobody who looks.

What it finds are facts; what is trouble is `judging`'s. It never starts the embedded server: one that is down is down.
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
from seedtrust_ops.dagster_db.heartbeats import read_heartbeats
from seedtrust_ops.dagster_db.ticks import Ticking, read_ticks
from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.database.engine import APPLICATION_DATABASE, DAGSTER_DATABASE
from seedtrust_ops.errors import SeedTrustError

CONNECT_SECONDS = 5
STATEMENT_SECONDS = 10
DEADLINE_SECONDS = 20.0
"""A server that is frozen, or whose host is gone, keeps neither of the two."""

Found = TypeVar("Found")


class NoResponse(Exception):
    """A database was not reached, or gave no answer."""


@dataclass(frozen=True)
class DagsterFacts:
    """What Dagster's own database holds: the last heartbeat (UTC) of each part that ever sent one, and all ticks."""

    heartbeats: Mapping[str, datetime]
    ticks: tuple[Ticking, ...]


@dataclass(frozen=True)
class Look:
    """What was found at `at` (UTC). Of each database either it was reached or the trouble is a sentence."""

    at: datetime
    application_trouble: str | None
    dagster_trouble: str | None
    dagster: DagsterFacts | None


class TimedQuery:
    """Asks one database questions, each on a connection of its own, and waits for no answer beyond the deadline."""

    def __init__(self, variable: str, url: Callable[[], URL], deadline_seconds: float = DEADLINE_SECONDS) -> None:
        """Take the variable that names the database, what finds it (may raise SeedTrustError), and the deadline."""
        self._variable = variable
        self._url = url
        self._deadline_seconds = deadline_seconds
        self._open: Future[Any] | None = None

    def ask(self, question: Callable[[Connection], Found]) -> Found:
        """Return what `question` returns, in a transaction that is then committed.

        Raises:
            NoResponse: why there is no answer, as a sentence without passwords.
        """
        if self._open is None or self._open.done():
            # While one question hangs, a second one would hang beside it.
            self._open = Future()
            threading.Thread(target=self._work, args=(question, self._open), daemon=True).start()
        else:
            raise NoResponse(self._hangs())
        try:
            answer: Found = self._open.result(self._deadline_seconds)
        except TimeoutError:
            raise NoResponse(self._hangs()) from None
        except SeedTrustError as error:
            raise NoResponse(str(error)) from None
        except SQLAlchemyError as error:
            words = " ".join(str(getattr(error, "orig", None) or error).split()).rstrip(".?")
            raise NoResponse(f"The database of {self._variable} can't be used: {words}.") from None
        return answer

    def _work(self, question: Callable[[Connection], Any], answer: Future[Any]) -> None:
        try:
            engine = create_engine(
                self._url().set(drivername="postgresql+psycopg"),
                poolclass=NullPool,
                hide_parameters=True,
                connect_args={"connect_timeout": CONNECT_SECONDS, "application_name": "seedtrust-ops"},
            )
            with engine.begin() as connection:
                connection.execute(text(f"set local statement_timeout = '{STATEMENT_SECONDS}s'"))
                found = question(connection)
        except BaseException as error:  # noqa: BLE001  whoever waits for the answer gets it raised
            answer.set_exception(error)
        else:
            answer.set_result(found)

    def _hangs(self) -> str:
        return (
            f"The database of {self._variable} gave no answer for {self._deadline_seconds:g} s: it hangs, or its "
            "machine or the network does."
        )


class Prober:
    """Looks at both databases."""

    def __init__(self, *, grace_seconds: float, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        """Take what a schedule or sensor is borne beyond two intervals, and how long one database may take."""
        self._grace_seconds = grace_seconds
        self.application = TimedQuery("SEEDTRUST_DATABASE_URL", application_database, deadline_seconds)
        self.dagster = TimedQuery("DAGSTER_POSTGRES_URL", dagster_database, deadline_seconds)

    def look(self) -> Look:
        """Look at both; takes at most two deadlines, and raises nothing that a database's state can cause."""
        application_trouble, dagster_trouble, facts = None, None, None
        try:
            self.application.ask(lambda connection: connection.execute(text("select 1")).one())
        except NoResponse as trouble:
            application_trouble = str(trouble)
        try:
            facts = self.dagster.ask(self._facts)
        except NoResponse as trouble:
            dagster_trouble = str(trouble)
        return Look(datetime.now(UTC), application_trouble, dagster_trouble, facts)

    def _facts(self, connection: Connection) -> DagsterFacts:
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
    """No database is configured, and the embedded PostgreSQL does not run."""


def application_database() -> URL:
    """Return where the application's database is; raises `EmbeddedServerDown` instead of starting a server."""
    return get_settings().databases.application_url or _embedded(APPLICATION_DATABASE)


def dagster_database() -> URL:
    """Return where Dagster's database is; raises `EmbeddedServerDown` instead of starting a server."""
    return get_settings().databases.dagster_url or _embedded(DAGSTER_DATABASE)


def _embedded(name: str) -> URL:
    folder = get_settings().databases.embedded_directory
    server = embedded_postgres.url_of_running(folder)
    if server is None:
        raise EmbeddedServerDown(
            f"No database is configured, and the embedded PostgreSQL in {folder} does not run: set "
            "SEEDTRUST_DATABASE_URL and DAGSTER_POSTGRES_URL, or start `seedtrust-ops dev` or `worker`."
        )
    return server.set(database=name)
