"""A real worker and a real web server for all tests of a file.

Starting them takes longer than the tests themselves, so the tests share them; each test uses its own runs.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.client import OpsClient
from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops.tag_names import PARALLEL_TAG
from seedtrust_ops_tests.client.operations_server import run_web_server, run_worker, server_variables
from seedtrust_ops_tests.conftest import TEMPLATE
from seedtrust_ops_tests.support.dagster_homes import DagsterHome, temporary_dagster_home
from seedtrust_ops_tests.support.databases import temporary_database
from seedtrust_ops_tests.support.tiers import Resource, provides


@dataclass
class OperationsServer:
    """A worker, a web server on its workspace, and the applications' database with JobRun."""

    home: DagsterHome
    variables: Mapping[str, str]
    log: Path
    sessions: sessionmaker[Session]
    url: str = ""
    workspace: Path = Path()
    _worker: ExitStack = field(default_factory=ExitStack)

    def start_worker(self) -> None:
        """Start `seedtrust-ops worker` and wait until its code server responds."""
        self.workspace = self._worker.enter_context(run_worker(self.home, self.variables, self.log))

    def stop_worker(self) -> None:
        """Stop it as KillMode=mixed does: SIGTERM to the supervisor only."""
        self._worker.close()


@pytest.fixture(scope="module")
@provides(Resource.DAEMON)
def operations_server(
    postgres_server: URL, tmp_path_factory: pytest.TempPathFactory, field_key: str
) -> Iterator[OperationsServer]:
    folder = tmp_path_factory.mktemp("operations")
    log = folder / "processes.log"
    with ExitStack() as stack:
        home = stack.enter_context(temporary_dagster_home(postgres_server, folder / "home"))
        _let_runs_wait(home)
        database = stack.enter_context(temporary_database(postgres_server, template=TEMPLATE))
        engine = create_application_engine(database)
        stack.callback(engine.dispose)
        server = OperationsServer(home, server_variables(home, database, field_key), log, sessionmaker(engine))
        stack.callback(server.stop_worker)
        server.start_worker()
        server.url = stack.enter_context(run_web_server(server.workspace, server.variables, log))
        yield server


def _let_runs_wait(home: DagsterHome) -> None:
    """Let only one run of `example_progress` run at a time, so that a test can keep others in the queue."""
    settings = yaml.safe_load((home.folder / "dagster.yaml").read_text())
    limits = settings["run_coordinator"]["config"]["tag_concurrency_limits"]
    limits.append({"key": PARALLEL_TAG, "value": "example_progress", "limit": 1})
    (home.folder / "dagster.yaml").write_text(yaml.safe_dump(settings))


@pytest.fixture
def operations(operations_server: OperationsServer) -> Iterator[OpsClient]:
    with OpsClient(operations_server.url, application="a-test", timeout_seconds=60) as operations:
        yield operations
