"""Where the databases are, and one engine a process for the application's, which speaks of trouble in sentences.

It imports no Dagster, for what must work without it; what is read and written is `domain/`'s.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import get_settings
from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.errors import ConfigurationError, DatabaseUnreachable, SchemaOutOfDate
from seedtrust_ops.migrations.migrator import HEAD_REVISION, current_revision, migrate

APPLICATION_DATABASE = "seedtrust"
DAGSTER_DATABASE = "dagster"
POOL_SIZE = 5
IDLE_IN_TRANSACTION_SECONDS = 10
"""After so long the server ends a transaction whose client has gone silent: a frozen worker must not hold its locks
past its lease, or nobody could take its batch over."""
LOCK_SECONDS = 20
"""The longest that a statement waits for a lock: twice what a silent transaction can hold one."""


def application_url() -> URL:
    """Return where the application's database is, starting the embedded server where none is configured."""
    settings = get_settings().databases
    if settings.application_url is not None:
        return settings.application_url
    server = embedded_postgres.start(settings.embedded_directory)
    return embedded_postgres.ensure_database(server, APPLICATION_DATABASE)


def dagster_url() -> URL:
    """Return where Dagster's own storage is, starting the embedded server where none is configured."""
    settings = get_settings().databases
    if settings.dagster_url is not None:
        return settings.dagster_url
    server = embedded_postgres.start(settings.embedded_directory)
    url = embedded_postgres.ensure_database(server, DAGSTER_DATABASE)
    return url.set(drivername="postgresql+psycopg2")


def create_application_engine(url: URL) -> Engine:
    """Return an engine for the application's database.

    Parameters are hidden from error texts: among them are encrypted account numbers and people's names.
    """
    options = (
        f"{url.query.get('options', '')} -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_SECONDS}s"
        f" -c lock_timeout={LOCK_SECONDS}s"
    )
    engine = create_engine(
        url,
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={
            "connect_timeout": 10,
            "application_name": "seedtrust-ops",
            "options": options.strip(),
            # A database host that vanishes is noticed within half a minute, not after hours.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 25_000,
        },
    )
    event.listen(engine, "do_executemany", _one_by_one)
    # The cursor counts the rows of the last statement alone.
    engine.dialect.supports_sane_multi_rowcount = False
    return engine


def _one_by_one(cursor: Any, statement: str, parameters: Sequence[Any], _context: Any) -> bool:
    """Send each statement by itself, where psycopg would send them all before it reads one answer.

    In the middle of such a pipeline the server does not take the client for idle, so the locks of a worker that
    freezes there would be held for as long as it is frozen.
    """
    for one in parameters:
        cursor.execute(statement, one)
    return True


@lru_cache(maxsize=1)
def application_engine() -> Engine:
    """Return this process's one engine, once its database was found fit.

    Raises:
        DatabaseUnreachable: when no connection is to be had.
        SchemaOutOfDate: when schema `ops` is not at the revision of this code.
    """
    engine = create_application_engine(application_url())
    with plain_database_errors(engine.url), engine.connect() as connection:
        revision = current_revision(connection)
    if revision != HEAD_REVISION:
        if get_settings().databases.application_url is not None:
            raise SchemaOutOfDate(
                f"Schema ops of {_place(engine.url)} is at revision {revision or 'nothing'} and this code wants "
                f"{HEAD_REVISION}: run `seedtrust-ops migrate`. Nothing was done."
            )
        migrate(engine, create_platform=True)
    return engine


def application_sessions() -> sessionmaker[Session]:
    """Return the maker of sessions on the application's database."""
    return sessionmaker(application_engine(), expire_on_commit=False)


@contextmanager
def plain_database_errors(url: URL) -> Iterator[None]:
    """Turn a refused or lost connection into `DatabaseUnreachable`, whose text has no password in it."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise unreachable(url, error) from error
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) is not None:
            raise
        # The driver's own refusal, before any server was asked: an option in the URL that there is not.
        raise ConfigurationError(f"SEEDTRUST_DATABASE_URL can't be used: {error.orig}. Correct its options.") from None


def unreachable(url: URL, error: DBAPIError) -> DatabaseUnreachable:
    """Return the sentence for a database that refused or dropped a connection."""
    reason = " ".join(str(error.orig).split()).rstrip(".?")
    return DatabaseUnreachable(
        f"The database {_place(url)} can't be used: {reason}. Check that it runs and that "
        "SEEDTRUST_DATABASE_URL is right; what was not committed was not done, and the next run takes it up."
    )


def _place(url: URL) -> str:
    host = url.host or url.query.get("host") or "localhost"
    return f"{url.database} at {host}" + (f":{url.port}" if url.port else "")
