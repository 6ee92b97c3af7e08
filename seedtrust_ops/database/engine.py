"""The database URLs, and one engine per process for the application database, with errors that say what to do.

It imports no Dagster, so that the watchdog and the command line work without it. Queries are in `domain/`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from psycopg.types.json import set_json_loads
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import Settings, get_settings
from seedtrust_ops.config.databases import DatabaseSettings
from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.database.session_guards import require_guards, set_guards
from seedtrust_ops.errors import ConfigurationError, DatabaseUnreachable, SchemaOutOfDate
from seedtrust_ops.migrations.migrator import HEAD_REVISION, current_revision, migrate
from seedtrust_ops.tables.extreme_times import register_adapters
from seedtrust_ops.tables.user_text import load_json

APPLICATION_DATABASE = "seedtrust"
DAGSTER_DATABASE = "dagster"
POOL_SIZE = 5
READ_ONLY_TRANSACTION = "25006"


def application_url() -> URL:
    """Return the URL of the application database; start the embedded server if none is configured."""
    return _application_url(get_settings().databases)


def _application_url(settings: DatabaseSettings) -> URL:
    if settings.application_url is not None:
        return settings.application_url
    server = embedded_postgres.start(settings.embedded_directory)
    return embedded_postgres.ensure_database(server, APPLICATION_DATABASE)


def dagster_url() -> URL:
    """Return the URL of Dagster's own database; start the embedded server if none is configured."""
    settings = get_settings().databases
    if settings.dagster_url is not None:
        return settings.dagster_url
    server = embedded_postgres.start(settings.embedded_directory)
    url = embedded_postgres.ensure_database(server, DAGSTER_DATABASE)
    return url.set(drivername="postgresql+psycopg2")


def create_application_engine(url: URL) -> Engine:
    """Return an engine for the application database.

    Error texts do not show parameters, which include encrypted account numbers and people's names.
    """
    engine = create_engine(
        url,
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={
            "connect_timeout": 10,
            "application_name": "seedtrust-ops",
            # Detects a database host that vanished within half a minute instead of hours.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 25_000,
        },
    )
    event.listen(engine, "do_executemany", _execute_one_by_one)
    event.listen(engine, "handle_error", _detect_demotion)
    set_guards(engine)
    accept_every_value(engine)
    # The cursor counts the rows of the last statement only.
    engine.dialect.supports_sane_multi_rowcount = False
    return engine


def _detect_demotion(context: ExceptionContext) -> None:
    """Count a connection to a server that accepts no writes as lost, with all others of the pool.

    Such a server was demoted to a standby, or is about to fail over; without this its connections would stay in the
    pool, and every write would fail, for as long as it runs.
    """
    is_refused_write = getattr(context.original_exception, "sqlstate", None) == READ_ONLY_TRANSACTION
    asked_for = context.connection is not None and context.connection.get_execution_options().get("postgresql_readonly")
    if is_refused_write and not asked_for:
        context.is_disconnect = True


def is_connection_lost(error: DBAPIError) -> bool:
    """Return whether the database was unavailable to a statement, so that it may succeed later as it is."""
    return isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated


def accept_every_value(engine: Engine) -> None:
    """Let an engine load dates, times and JSON that Python cannot represent, so that no row fails a query over many."""

    def prepare(connection: Any, _record: object) -> None:
        register_adapters(connection.adapters)
        set_json_loads(load_json, connection)

    event.listen(engine, "connect", prepare)


def _execute_one_by_one(cursor: Any, statement: str, parameters: Sequence[Any], _context: Any) -> bool:
    """Send each statement separately; psycopg would send all of them before it reads a response.

    In the middle of such a pipeline the server does not consider the client idle, so a worker that freezes there would
    hold its locks as long as it is frozen.
    """
    for one in parameters:
        cursor.execute(statement, one)
    return True


def application_engine() -> Engine:
    """Return this process's one engine, for the settings of `get_settings`; see `open_application_engine`."""
    return _process_engine(get_settings())


@lru_cache(maxsize=1)
def _process_engine(settings: Settings) -> Engine:
    return open_application_engine(settings)


def dispose_application_engine() -> None:
    """Close this process's connections to the application database; the next `application_engine` opens new ones."""
    if _process_engine.cache_info().currsize:
        application_engine().dispose()
    _process_engine.cache_clear()


def open_application_engine(settings: Settings) -> Engine:
    """Return a new engine for these settings, after checking its database; the caller disposes of it.

    Raises:
        DatabaseUnreachable: if no connection can be made.
        ConfigurationError: if something between here and the server keeps the guards from being in force.
        SchemaOutOfDate: if schema `ops` is not at the revision of this code.
    """
    engine = create_application_engine(_application_url(settings.databases))
    with translate_database_errors(engine.url), engine.connect() as connection:
        require_guards(connection)
        revision = current_revision(connection)
    if revision != HEAD_REVISION:
        if settings.databases.application_url is not None:
            raise SchemaOutOfDate(
                f"Schema ops of {_describe(engine.url)} is at revision {revision or 'none'}, but this code needs "
                f"{HEAD_REVISION}. Run `seedtrust-ops migrate`. No work was done."
            )
        migrate(engine, create_platform=True)
    return engine


def application_sessions() -> sessionmaker[Session]:
    """Return the session factory for the application database."""
    return sessionmaker(application_engine(), expire_on_commit=False)


@contextmanager
def translate_database_errors(url: URL) -> Iterator[None]:
    """Turn a refused or lost connection into `DatabaseUnreachable`, whose text contains no password."""
    try:
        yield
    except DBAPIError as error:
        if is_connection_lost(error):
            raise unreachable_error(url, error) from error
        if not isinstance(error, ProgrammingError) or getattr(error.orig, "sqlstate", None) is not None:
            raise
        # The driver itself rejected an option in the URL; no server was contacted.
        raise ConfigurationError(f"SEEDTRUST_DATABASE_URL is invalid: {error.orig}. Correct its options.") from None


def unreachable_error(url: URL, error: DBAPIError) -> DatabaseUnreachable:
    """Return the error for a database that refused or dropped a connection."""
    reason = " ".join(str(error.orig).split()).rstrip(".?")
    return DatabaseUnreachable(
        f"Database {_describe(url)} is unavailable: {reason}. Check that it is running and that SEEDTRUST_DATABASE_URL "
        "is correct. Uncommitted work was rolled back; the next run picks it up."
    )


def _describe(url: URL) -> str:
    host = url.host or url.query.get("host") or "localhost"
    host = host if isinstance(host, str) else " or ".join(host)
    return f"{url.database} at {host}" + (f":{url.port}" if url.port else "")
