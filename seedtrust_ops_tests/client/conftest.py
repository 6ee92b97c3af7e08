"""A real worker and a real web server for all tests of a file.

Starting them takes longer than the tests themselves, so the tests share them; each test uses its own runs.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.client import OpsClient
from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops_tests.client.operations_server import run_web_server, run_worker, server_variables
from seedtrust_ops_tests.conftest import TEMPLATE
from seedtrust_ops_tests.support.dagster_homes import temporary_dagster_home
from seedtrust_ops_tests.support.databases import temporary_database
from seedtrust_ops_tests.support.tiers import Resource, provides


@dataclass(frozen=True)
class OperationsServer:
    """The web server's URL, workspace and environment, and the applications' database with JobRun."""

    url: str
    workspace: Path
    variables: Mapping[str, str]
    sessions: sessionmaker[Session]


@pytest.fixture(scope="module")
@provides(Resource.DAEMON)
def operations_server(
    postgres_server: URL, tmp_path_factory: pytest.TempPathFactory, field_key: str
) -> Iterator[OperationsServer]:
    folder = tmp_path_factory.mktemp("operations")
    log = folder / "processes.log"
    with ExitStack() as stack:
        home = stack.enter_context(temporary_dagster_home(postgres_server, folder / "home"))
        database = stack.enter_context(temporary_database(postgres_server, template=TEMPLATE))
        variables = server_variables(home, database, field_key)
        workspace = stack.enter_context(run_worker(home, variables, log))
        url = stack.enter_context(run_web_server(workspace, variables, log))
        engine = create_application_engine(database)
        stack.callback(engine.dispose)
        yield OperationsServer(url, workspace, variables, sessionmaker(engine))


@pytest.fixture
def operations(operations_server: OperationsServer) -> Iterator[OpsClient]:
    with OpsClient(operations_server.url, application="a-test", timeout_seconds=60) as operations:
        yield operations
