"""SeedTrust Ops as the applications meet it: a real worker and a real web server, for all tests of a file.

Starting them takes longer than what the tests do with them, so they share one; each test looks at runs of its own.
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
from seedtrust_ops_tests.client.operations_server import serving, variables_of, working
from seedtrust_ops_tests.conftest import TEMPLATE
from seedtrust_ops_tests.support.dagster_homes import dagster_home_of_its_own
from seedtrust_ops_tests.support.databases import own_database


@dataclass(frozen=True)
class OperationsServer:
    """Where the web server is, what it stands on, and the applications' database that JobRun is in."""

    url: str
    workspace: Path
    variables: Mapping[str, str]
    sessions: sessionmaker[Session]


@pytest.fixture(scope="module")
def operations_server(
    postgres_server: URL, tmp_path_factory: pytest.TempPathFactory, field_key: str
) -> Iterator[OperationsServer]:
    folder = tmp_path_factory.mktemp("operations")
    log = folder / "processes.log"
    with ExitStack() as stack:
        home = stack.enter_context(dagster_home_of_its_own(postgres_server, folder / "home"))
        database = stack.enter_context(own_database(postgres_server, template=TEMPLATE))
        variables = variables_of(home, database, field_key)
        workspace = stack.enter_context(working(home, variables, log))
        url = stack.enter_context(serving(workspace, variables, log))
        engine = create_application_engine(database)
        stack.callback(engine.dispose)
        yield OperationsServer(url, workspace, variables, sessionmaker(engine))


@pytest.fixture
def operations(operations_server: OperationsServer) -> Iterator[OpsClient]:
    with OpsClient(operations_server.url, application="a-test", timeout_seconds=60) as operations:
        yield operations
