"""SeedTrust Ops as the applications meet it: a real worker and a real web server, for all tests of a file.

Starting them takes longer than what the tests do with them, so they share one; each test looks at runs of its own.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.client import Operations
from seedtrust_ops.config import environment_for_child
from seedtrust_ops.processes.running import WORKER_FOLDER
from seedtrust_ops.processes.worker import LOOPBACK, free_port, is_listening, web_server
from seedtrust_ops.resources.database import create_application_engine
from seedtrust_ops_tests.conftest import TEMPLATE
from seedtrust_ops_tests.dagster_homes import dagster_home_of_its_own
from seedtrust_ops_tests.databases import own_database, plain
from seedtrust_ops_tests.waiting import wait_until

PRODUCTION_IS_OFF = {"DEV_ENV": "1"}
"""Only what these tests launch runs, and the example jobs are there."""


@dataclass(frozen=True)
class OperationsServer:
    """Where the web server is, what it stands on, and the applications' database that JobRun is in."""

    url: str
    workspace: Path
    variables: Mapping[str, str]
    sessions: sessionmaker[Session]


@contextmanager
def serving(workspace: Path, variables: Mapping[str, str], log: Path, *options: str) -> Iterator[str]:
    """A web server on the workspace, with more `options` than ours has; yields its address."""
    port = free_port()
    program = web_server(environment_for_child(dict(variables)), workspace, port)
    with _running(*program.command, *options, variables=variables, log=log):
        wait_until(lambda: is_listening(port), seconds=240, what="the web server")
        yield f"http://{LOOPBACK}:{port}"


@pytest.fixture(scope="module")
def operations_server(
    postgres_server: URL, tmp_path_factory: pytest.TempPathFactory, field_key: str
) -> Iterator[OperationsServer]:
    folder = tmp_path_factory.mktemp("operations")
    log = folder / "processes.log"
    with ExitStack() as stack:
        home = stack.enter_context(dagster_home_of_its_own(postgres_server, folder / "home"))
        database = stack.enter_context(own_database(postgres_server, template=TEMPLATE))
        variables = {
            **home.variables,
            **PRODUCTION_IS_OFF,
            "SEEDTRUST_DATABASE_URL": plain(database),
            "SEEDTRUST_FIELD_KEY": field_key,
        }
        stack.enter_context(_running(sys.executable, "-m", "seedtrust_ops.cli", "worker", variables=variables, log=log))
        workspace = home.folder / WORKER_FOLDER / "workspace.yaml"
        wait_until(lambda: workspace.is_file() and is_listening(_port_in(workspace)), seconds=240, what="the worker")
        url = stack.enter_context(serving(workspace, variables, log))
        engine = create_application_engine(database)
        stack.callback(engine.dispose)
        yield OperationsServer(url, workspace, variables, sessionmaker(engine))


@pytest.fixture
def operations(operations_server: OperationsServer) -> Iterator[Operations]:
    with Operations(operations_server.url, application="a-test", timeout_seconds=60) as operations:
        yield operations


def _port_in(workspace: Path) -> int:
    (entry,) = yaml.safe_load(workspace.read_text())["load_from"]
    port: int = entry["grpc_server"]["port"]
    return port


@contextmanager
def _running(*command: str, variables: Mapping[str, str], log: Path) -> Iterator[None]:
    with log.open("a") as output:
        process = subprocess.Popen(
            command, env=environment_for_child(dict(variables)), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            yield
        except BaseException:
            sys.stderr.write(log.read_text())
            raise
        finally:
            process.terminate()
            process.wait(120)
