"""Opens a system's Dagster instance and workspace, for parts that submit runs or read their history."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

from bench.environment import BenchEnvironment
from seedtrust_ops_tests.support.environment import process_environment

LOCATION = "seedtrust_ops"


@contextmanager
def load_instance(env: BenchEnvironment, home: Path) -> Iterator[dg.DagsterInstance]:
    """Open the instance of DAGSTER_HOME `home` in this process."""
    variables = {**env.variables, "DAGSTER_HOME": str(home)}
    with process_environment(**variables), dg.DagsterInstance.get() as instance:
        yield instance


@contextmanager
def load_workspace(instance: dg.DagsterInstance, file: Path) -> Iterator[WorkspaceRequestContext]:
    """Open the workspace of a workspace.yaml file."""
    with WorkspaceProcessContext(instance, WorkspaceFileTarget([str(file)])) as process:
        yield process.create_request_context()
