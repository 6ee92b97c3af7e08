"""Puts runs into Dagster's queue as the web server does, for the parts that measure runs and not their causes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.selector import JobSubsetSelector
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

from bench.ground import Ground
from seedtrust_ops.config import environment

LOCATION = "seedtrust_ops"


@contextmanager
def instance_at(there: Ground, home: Path) -> Iterator[dg.DagsterInstance]:
    """The instance of DAGSTER_HOME `home`, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**there.environment, "DAGSTER_HOME": str(home)}.items():
            patch.setenv(name, value)
        environment.cache_clear()
        try:
            with dg.DagsterInstance.get() as instance:
                yield instance
        finally:
            environment.cache_clear()


@contextmanager
def workspace_at(instance: dg.DagsterInstance, file: Path) -> Iterator[WorkspaceRequestContext]:
    """The workspace of a workspace.yaml."""
    with WorkspaceProcessContext(instance, WorkspaceFileTarget([str(file)])) as process:
        yield process.create_request_context()


def submit(
    instance: dg.DagsterInstance, workspace: WorkspaceRequestContext, job: str, run_config: dict[str, Any]
) -> str:
    """Put one run of the job into the queue; return its id."""
    location = workspace.get_code_location(LOCATION)
    (repository,) = location.get_repositories().values()
    found = location.get_job(JobSubsetSelector(LOCATION, repository.name, job, None))
    plan = location.get_execution_plan(
        found, run_config, step_keys_to_execute=None, known_state=None, instance=instance
    ).execution_plan_snapshot
    run = instance.create_run(
        job_name=job,
        run_id=None,
        run_config=run_config,
        status=None,
        tags={},
        root_run_id=None,
        parent_run_id=None,
        step_keys_to_execute=plan.step_keys_to_execute,
        execution_plan_snapshot=plan,
        job_snapshot=found.job_snapshot,
        parent_job_snapshot=found.parent_job_snapshot,
        asset_selection=None,
        asset_check_selection=None,
        resolved_op_selection=None,
        op_selection=None,
        remote_job_origin=found.get_remote_origin(),
        job_code_origin=found.get_python_origin(),
        asset_graph=repository.asset_graph,
    )
    return instance.submit_run(run.run_id, workspace).run_id
