"""The application's database: where it is, whether its schema is fit, and trouble told without a password.

The embedded server is the real one, shared by processes.
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

from seedtrust_ops.config import get_settings
from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.database.engine import (
    application_engine,
    create_application_engine,
    dagster_url,
    plain_database_errors,
)
from seedtrust_ops.errors import ConfigurationError, DatabaseUnreachable, SchemaOutOfDate
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.orchestration.user_facing_failures import user_facing_failures
from seedtrust_ops_tests.support.databases import create_platform, folder_for_a_server, own_database, plain
from seedtrust_ops_tests.support.waiters import wait_until

PASSWORD = "hunter2-and-more"
SHARED = """
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
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that has read nothing yet."""
    monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
    monkeypatch.delenv("SEEDTRUST_DATABASE_URL", raising=False)
    get_settings.cache_clear()
    application_engine.cache_clear()
    yield
    get_settings.cache_clear()
    application_engine.cache_clear()


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_for_a_server() as folder:
        yield folder


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port at which nobody listens for as long as the test lasts."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        yield silent.getsockname()[1]


@pytest.mark.usefixtures("use")
@pytest.mark.parametrize("query", ["", f"?password={PASSWORD}", "?sslmode=nonsense"])
def test_an_unreachable_database_is_named_with_what_to_do_and_without_its_password(
    monkeypatch: pytest.MonkeyPatch, closed_port: int, query: str
) -> None:
    url = f"postgresql://ops:{PASSWORD}@127.0.0.1:{closed_port}/seedtrust{query}"
    monkeypatch.setenv("SEEDTRUST_DATABASE_URL", url)
    with pytest.raises(DatabaseUnreachable) as raised:
        DatabaseResource().sessions()
    sentence = str(raised.value)
    assert f"The database seedtrust at 127.0.0.1:{closed_port} can't be used: " in sentence
    assert "SEEDTRUST_DATABASE_URL" in sentence
    assert PASSWORD not in "".join(traceback.format_exception(raised.value))
    assert raised.value.retry_may_help


@pytest.mark.usefixtures("use")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"database": "nowhere"}, "does not exist"),
        ({"username": "nobody", "password": PASSWORD}, "nobody"),
    ],
)
def test_a_server_that_refuses_us_is_quoted_without_the_password(
    monkeypatch: pytest.MonkeyPatch, database_url: URL, change: dict[str, object], reason: str
) -> None:
    monkeypatch.setenv("SEEDTRUST_DATABASE_URL", plain(database_url.set(**change)))  # type: ignore[arg-type]
    with pytest.raises(DatabaseUnreachable, match=reason) as raised:
        DatabaseResource().sessions()
    assert PASSWORD not in "".join(traceback.format_exception(raised.value))


@pytest.mark.usefixtures("use")
def test_an_option_that_the_driver_does_not_know_is_a_mistake_in_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEDTRUST_DATABASE_URL", f"postgresql://ops:{PASSWORD}@127.0.0.1/seedtrust?sslmod={PASSWORD}")
    with pytest.raises(ConfigurationError, match=r"SEEDTRUST_DATABASE_URL can.t be used: .*sslmod") as raised:
        DatabaseResource().sessions()
    assert PASSWORD not in "".join(traceback.format_exception(raised.value))


@pytest.mark.usefixtures("use")
def test_a_process_finds_its_way_back_when_the_database_does(
    monkeypatch: pytest.MonkeyPatch, database_url: URL
) -> None:
    monkeypatch.setenv("SEEDTRUST_DATABASE_URL", plain(database_url))
    sessions = DatabaseResource().sessions()
    with create_engine(database_url.set(database="postgres"), isolation_level="AUTOCOMMIT").connect() as control:
        control.execute(text(f"alter database {database_url.database} allow_connections false"))
        control.execute(
            text("select pg_terminate_backend(pid, 60000) from pg_stat_activity where datname = :name"),
            {"name": database_url.database},
        )
        with (
            pytest.raises(Exception, match=r"The database .* can't be used") as raised,
            user_facing_failures(),
            sessions() as session,
        ):
            session.scalar(text("select 1"))
        assert getattr(raised.value, "allow_retries", None) is True
        control.execute(text(f"alter database {database_url.database} allow_connections true"))
    with DatabaseResource().sessions()() as session:
        assert session.scalar(text("select 1")) == 1


@pytest.mark.usefixtures("use")
def test_a_schema_that_was_never_migrated_is_told_and_a_configured_database_is_not_touched(
    monkeypatch: pytest.MonkeyPatch, postgres_server: URL
) -> None:
    with own_database(postgres_server) as url:
        create_platform(url)
        monkeypatch.setenv("SEEDTRUST_DATABASE_URL", plain(url))
        with pytest.raises(SchemaOutOfDate, match="run `seedtrust-ops migrate`"):
            DatabaseResource().sessions()
        engine = create_engine(url)
        with engine.connect() as connection:
            assert connection.scalar(text("select to_regnamespace('ops')")) is None
        engine.dispose()


def test_no_statement_s_parameters_are_in_an_error(database_url: URL) -> None:
    engine = create_application_engine(database_url)
    number = int("730051186423")
    with pytest.raises(Exception, match="hide_parameters") as raised, engine.begin() as connection:
        connection.execute(text("select :number / 0"), {"number": number})
    assert str(number) not in "".join(traceback.format_exception(raised.value))
    engine.dispose()


def test_trouble_of_another_kind_is_no_trouble_of_the_connection() -> None:
    with pytest.raises(ZeroDivisionError), plain_database_errors(make_url("postgresql://h/d")):
        _ = 1 / 0


@pytest.mark.usefixtures("use")
def test_dagster_s_storage_is_where_its_variable_says(monkeypatch: pytest.MonkeyPatch, database_url: URL) -> None:
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", plain(database_url))
    assert dagster_url() == database_url.set(drivername="postgresql+psycopg2")


def test_two_processes_share_one_embedded_server_and_it_outlives_them(folder: Path) -> None:
    directory = folder / "d"
    processes = [
        subprocess.Popen([sys.executable, "-c", SHARED, str(directory)], stdout=subprocess.PIPE, text=True)
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


def test_with_no_variable_at_all_a_process_makes_its_databases_in_the_home_folder(folder: Path) -> None:
    bare = {"HOME": str(folder), "PATH": os.environ["PATH"]}
    script = (
        "from seedtrust_ops.database.engine import dagster_url;"
        "from seedtrust_ops.orchestration.dagster_resources import DatabaseResource;"
        "from sqlalchemy import text;"
        "session = DatabaseResource().sessions()();"
        "print(session.scalar(text('select count(*) from users')), dagster_url().drivername, dagster_url().database)"
    )
    try:
        done = subprocess.run([sys.executable, "-c", script], env=bare, capture_output=True, text=True, timeout=120)
        assert done.stdout.split() == ["0", "postgresql+psycopg2", "dagster"], done.stderr
    finally:
        embedded_postgres.stop(folder / ".seedtrust" / "postgres")


def test_server_takes_a_worker_for_idle_between_two_statements_of_many(database_url: URL) -> None:
    # Only a client that the server takes for idle loses its locks when it freezes.
    states: list[str] = []
    engine = create_application_engine(database_url)
    watching = create_engine(database_url, isolation_level="AUTOCOMMIT")

    class Watched(int):
        pass

    class WatchedDumper(Int8Dumper):
        def dump(self, one: int) -> bytes:
            with watching.connect() as other:
                query = text("select state from pg_stat_activity where pid = :pid")
                states.extend(other.scalars(query, {"pid": backend}))
            return str(int(one)).encode()

    with engine.begin() as connection:
        backend = connection.scalar(text("select pg_backend_pid()"))
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.adapters.register_dumper(Watched, WatchedDumper)
        connection.execute(text("create temporary table numbers (number bigint)"))
        rows = [{"number": Watched(number)} for number in range(3)]
        connection.execute(text("insert into numbers values (:number)"), rows)
        assert connection.scalar(text("select count(*) from numbers")) == 3

    assert states
    assert set(states) == {"idle in transaction"}
    engine.dispose()
    watching.dispose()


def test_embedded_server_that_was_killed_is_started_again_with_what_it_held(folder: Path) -> None:
    url = embedded_postgres.ensure_database(embedded_postgres.start(folder / "d"), "kept")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("create table kept (number int)"))
    os.kill(int((folder / "d" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    wait_until(lambda: not embedded_postgres.is_running(folder / "d"), what="its end")

    embedded_postgres.start(folder / "d")

    engine.dispose()
    with engine.connect() as connection:
        assert connection.scalar(text("select count(*) from kept")) == 0
    engine.dispose()
    embedded_postgres.stop(folder / "d")
    assert not embedded_postgres.is_running(folder / "d")
