"""Databases of a test's own on the session's server, made and dropped around a block.

What is in one is the test's business; `conftest` has the one that most tests want.
"""

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL

from seedtrust_ops.migrations.migrator import PLATFORM_SCHEMA


@contextmanager
def folder_for_a_server() -> Iterator[Path]:
    """A folder in which an embedded server can live, removed at the end.

    Not pytest's own: the server runs as another user, and every pytest that starts on this machine takes
    others' rights away from the folder that all its sessions share.
    """
    with tempfile.TemporaryDirectory(prefix="seedtrust-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def own_database(server: URL, *, template: str = "template1") -> Iterator[URL]:
    """A database that is dropped at the end, whoever is still connected."""
    name = f"own_{secrets.token_hex(6)}"
    control = create_engine(
        server.set(drivername="postgresql+psycopg", database="postgres"), isolation_level="AUTOCOMMIT"
    )
    try:
        with control.connect() as connection:
            connection.execute(text(f"create database {name} template {template}"))
        yield server.set(drivername="postgresql+psycopg", database=name)
        with control.connect() as connection:
            connection.execute(text(f"drop database {name} with (force)"))
    finally:
        control.dispose()


def plain(url: URL) -> str:
    """The URL as people write it and as the driver itself takes it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def create_platform(url: URL) -> None:
    """Make the platform's tables from the platform's own SQL file, by the driver alone."""
    with psycopg.connect(plain(url)) as connection:
        connection.execute(PLATFORM_SCHEMA.read_bytes())
