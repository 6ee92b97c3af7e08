"""The application database: its URL, the check of its schema, and connection errors that contain no password.

The tests use the real embedded server, which processes share.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg.types.numeric import Int8Dumper
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url

from seedtrust_ops.config import Settings
from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.database.engine import (
    create_application_engine,
    dagster_url,
    open_application_engine,
    translate_database_errors,
)
from seedtrust_ops.errors import ConfigurationError, DatabaseUnreachable, SchemaOutOfDate
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.orchestration.user_facing_failures import user_facing_failures
from seedtrust_ops_tests.support.databases import create_platform_schema, plain_url, postgres_folder, temporary_database
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.waiters import wait_until

PASSWORD = "hunter2-and-more"
SHARED_SERVER_SCRIPT = """
import json, sys, time
from pathlib import Path
from sqlalchemy import create_engine, text
from seedtrust_ops.database import embedded_postgres
server = embedded_postgres.start(Path(sys.argv[1]))
url = embedded_postgres.ensure_database(server, "shared")
with create_engine(url).connect() as connection:
    print(json.dumps([str(url), str(connection.scalar(text("select pg_postmaster_start_time()")))]))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with postgres_folder() as folder:
        yield folder


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nothing listens during the test."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]


@pytest.mark.parametrize("query", ["", f"?password={PASSWORD}", "?sslmode=nonsense"])
def test_unreachable_database_is_named_without_its_password(closed_port: int, query: str) -> None:
    url = f"postgresql://ops:{PASSWORD}@127.0.0.1:{closed_port}/seedtrust{query}"
    with pytest.raises(DatabaseUnreachable) as raised:
        open_application_engine(Settings({"SEEDTRUST_DATABASE_URL": url}))
    message = str(raised.value)
    assert f"Database seedtrust at 127.0.0.1:{closed_port} is unavailable: " in message
    assert "SEEDTRUST_DATABASE_URL" in message
    assert PASSWORD not in "".join(traceback.format_exception(raised.value))
    assert raised.value.retry_may_help


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"database": "nowhere"}, "does not exist"),
        ({"username": "nobody", "password": PASSWORD}, "nobody"),
    ],
)
def test_refused_login_is_quoted_without_the_password(
    database_url: URL, change: dict[str, object], reason: str
) -> None:
    url = plain_url(database_url.set(**change))  # type: ignore[arg-type]
    with pytest.raises(DatabaseUnreachable, match=reason) as raised:
        open_application_engine(Settings({"SEEDTRUST_DATABASE_URL": url}))
    assert PASSWORD not in "".join(traceback.format_exception(raised.value))


def test_unknown_url_option_is_a_configuration_error() -> None:
    url = f"postgresql://ops:{PASSWORD}@127.0.0.1/seedtrust?sslmod={PASSWORD}"
    with pytest.raises(ConfigurationError, match=r"SEEDTRUST_DATABASE_URL is invalid: .*sslmod") as raised:
        open_application_engine(Settings({"SEEDTRUST_DATABASE_URL": url}))
    assert PASSWORD not in "".join(traceback.format_exception(raised.value))


def test_process_reconnects_when_the_database_is_back(set_variables: SetVariables, database_url: URL) -> None:
    set_variables(SEEDTRUST_DATABASE_URL=plain_url(database_url))
    sessions = DatabaseResource().sessions()
    with create_engine(database_url.set(database="postgres"), isolation_level="AUTOCOMMIT").connect() as control:
        control.execute(text(f"alter database {database_url.database} allow_connections false"))
        control.execute(
            text("select pg_terminate_backend(pid, 60000) from pg_stat_activity where datname = :name"),
            {"name": database_url.database},
        )
        with (
            pytest.raises(Exception, match=r"Database .* is unavailable") as raised,
            user_facing_failures(),
            sessions() as session,
        ):
            session.scalar(text("select 1"))
        assert getattr(raised.value, "allow_retries", None) is True
        control.execute(text(f"alter database {database_url.database} allow_connections true"))
    with DatabaseResource().sessions()() as session:
        assert session.scalar(text("select 1")) == 1


def test_configured_database_is_never_migrated_implicitly(postgres_server: URL) -> None:
    with temporary_database(postgres_server) as url:
        create_platform_schema(url)
        with pytest.raises(SchemaOutOfDate, match="Run `seedtrust-ops migrate`"):
            open_application_engine(Settings({"SEEDTRUST_DATABASE_URL": plain_url(url)}))
        engine = create_engine(url)
        with engine.connect() as connection:
            assert connection.scalar(text("select to_regnamespace('ops')")) is None
        engine.dispose()


def test_error_contains_no_statement_parameters(database_url: URL) -> None:
    engine = create_application_engine(database_url)
    number = int("730051186423")
    with pytest.raises(Exception, match="hide_parameters") as raised, engine.begin() as connection:
        connection.execute(text("select :number / 0"), {"number": number})
    assert str(number) not in "".join(traceback.format_exception(raised.value))
    engine.dispose()


def test_other_errors_are_not_translated() -> None:
    with pytest.raises(ZeroDivisionError), translate_database_errors(make_url("postgresql://h/d")):
        _ = 1 / 0


def test_dagster_url_is_the_configured_one(set_variables: SetVariables, database_url: URL) -> None:
    set_variables(DAGSTER_POSTGRES_URL=plain_url(database_url))
    assert dagster_url() == database_url.set(drivername="postgresql+psycopg2")


@pytest.mark.usefixtures("child_processes")
def test_embedded_server_is_shared_and_outlives_its_processes(folder: Path) -> None:
    directory = folder / "d"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SHARED_SERVER_SCRIPT, str(directory)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        first, second = (json.loads(process.communicate(timeout=120)[0].splitlines()[-1]) for process in processes)
        assert first == second
        engine = create_engine(make_url(first[0]))
        with engine.connect() as connection:
            assert str(connection.scalar(text("select pg_postmaster_start_time()"))) == first[1]
        engine.dispose()
    finally:
        embedded_postgres.stop(directory)
    assert not (directory / "postmaster.pid").exists()
    embedded_postgres.stop(directory)


@pytest.mark.usefixtures("child_processes")
def test_databases_are_created_in_the_home_folder_by_default(folder: Path) -> None:
    bare = {"HOME": str(folder), "PATH": os.environ["PATH"]}
    script = (
        "from seedtrust_ops.database.engine import dagster_url;"
        "from seedtrust_ops.orchestration.dagster_resources import DatabaseResource;"
        "from sqlalchemy import text;"
        "session = DatabaseResource().sessions()();"
        "print(session.scalar(text('select count(*) from users')), dagster_url().drivername, dagster_url().database)"
    )
    try:
        finished = subprocess.run([sys.executable, "-c", script], env=bare, capture_output=True, text=True, timeout=120)
        assert finished.stdout.split() == ["0", "postgresql+psycopg2", "dagster"], finished.stderr
    finally:
        embedded_postgres.stop(folder / ".seedtrust" / "postgres")


def test_server_sees_client_as_idle_between_batched_statements(database_url: URL) -> None:
    # Only a client that the server sees as idle loses its locks when it freezes.
    states: list[str] = []
    engine = create_application_engine(database_url)
    observer = create_engine(database_url, isolation_level="AUTOCOMMIT")

    class Observed(int):
        pass

    class ObservedDumper(Int8Dumper):
        def dump(self, number: int) -> bytes:
            with observer.connect() as other:
                query = text("select state from pg_stat_activity where pid = :pid")
                states.extend(other.scalars(query, {"pid": backend}))
            return str(int(number)).encode()

    with engine.begin() as connection:
        backend = connection.scalar(text("select pg_backend_pid()"))
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.adapters.register_dumper(Observed, ObservedDumper)
        connection.execute(text("create temporary table numbers (number bigint)"))
        rows = [{"number": Observed(number)} for number in range(3)]
        connection.execute(text("insert into numbers values (:number)"), rows)
        assert connection.scalar(text("select count(*) from numbers")) == 3

    assert states
    assert set(states) == {"idle in transaction"}
    engine.dispose()
    observer.dispose()


@pytest.mark.usefixtures("child_processes")
def test_killed_embedded_server_restarts_with_its_data(folder: Path) -> None:
    url = embedded_postgres.ensure_database(embedded_postgres.start(folder / "d"), "kept")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("create table kept (number int)"))
    os.kill(int((folder / "d" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    wait_until(lambda: not embedded_postgres.is_running(folder / "d"), what="the server to exit")

    embedded_postgres.start(folder / "d")

    engine.dispose()
    with engine.connect() as connection:
        assert connection.scalar(text("select count(*) from kept")) == 0
    engine.dispose()
    embedded_postgres.stop(folder / "d")
    assert not embedded_postgres.is_running(folder / "d")
