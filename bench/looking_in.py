"""A contender's instance and workspace, for the parts that put runs into its queue or read what became of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

from bench.ground import Ground
from seedtrust_ops.config import get_settings

LOCATION = "seedtrust_ops"


@contextmanager
def instance_at(there: Ground, home: Path) -> Iterator[dg.DagsterInstance]:
    """The instance of DAGSTER_HOME `home`, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**there.environment, "DAGSTER_HOME": str(home)}.items():
            patch.setenv(name, value)
        get_settings.cache_clear()
        try:
            with dg.DagsterInstance.get() as instance:
                yield instance
        finally:
            get_settings.cache_clear()


@contextmanager
def workspace_at(instance: dg.DagsterInstance, file: Path) -> Iterator[WorkspaceRequestContext]:
    """The workspace of a workspace.yaml."""
    with WorkspaceProcessContext(instance, WorkspaceFileTarget([str(file)])) as process:
        yield process.create_request_context()
