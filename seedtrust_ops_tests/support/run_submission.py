"""Submits runs of a job to Dagster's queue as the web server does, for tests and the benchmark."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.selector import JobSubsetSelector
from dagster._core.workspace.context import BaseWorkspaceRequestContext


def submit_runs(
    instance: dg.DagsterInstance,
    workspace: BaseWorkspaceRequestContext,
    location_name: str,
    job: str,
    run_config: Mapping[str, Any],
    count: int = 1,
) -> list[str]:
    """Submit `count` runs of a job to the queue; return their ids."""
    location = workspace.get_code_location(location_name)
    (repository,) = location.get_repositories().values()
    found = location.get_job(JobSubsetSelector(location_name, repository.name, job, None))
    plan = location.get_execution_plan(
        found, run_config, step_keys_to_execute=None, known_state=None, instance=instance
    ).execution_plan_snapshot
    ids = []
    for _ in range(count):
        run = instance.create_run(
            job_name=job,
            run_id=None,
            run_config=run_config,
            status=None,
            tags=found.run_tags,
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
        ids.append(instance.submit_run(run.run_id, workspace).run_id)
    return ids
