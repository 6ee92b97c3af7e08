"""A real `seedtrust-ops worker` and its code, for tests that queue runs while it is down or busy."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import InProcessTestWorkspaceLoadTarget, create_run_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import BaseWorkspaceRequestContext, WorkspaceProcessContext

from seedtrust_ops.config import environment_for_child
from seedtrust_ops_tests.support.dagster_homes import DagsterHome

# Same location name as the worker's: Dagster's launcher uses the code server of the location that a run names.
CODE = InProcessCodeLocationOrigin(
    LoadableTargetOrigin(module_name="seedtrust_ops.definitions"), location_name="seedtrust_ops"
)


@contextmanager
def worker(home: DagsterHome, variables: Mapping[str, str], log: Path) -> Iterator[None]:
    """Run `seedtrust-ops worker`; unless `variables` say otherwise, only the automations that are always on run."""
    command = [sys.executable, "-m", "seedtrust_ops.cli.main", "worker"]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            env=environment_for_child({"DEV_ENV": "1"} | dict(variables) | home.variables),
            stdout=output,
            stderr=output,
        )
        try:
            yield
        except BaseException:
            sys.stderr.write(log.read_text())
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(100)


def submit_run(
    instance: dg.DagsterInstance, workspace: BaseWorkspaceRequestContext, job_name: str, **changes: Any
) -> str:
    """Queue a run of the job with the job's own run tags and `changes`, arguments of `create_run`; return its id."""
    (location,) = workspace.code_locations
    job = location.get_repository("__repository__").get_full_job(job_name)
    run = create_run_for_test(
        instance,
        job_name=job_name,
        tags=dict(job.run_tags) | changes.pop("tags", {}),
        remote_job_origin=job.get_remote_origin(),
        job_code_origin=job.get_python_origin(),
        **changes,
    )
    instance.submit_run(run.run_id, workspace)
    return run.run_id


@contextmanager
def open_workspace(instance: dg.DagsterInstance) -> Iterator[BaseWorkspaceRequestContext]:
    """Yield the workspace of the project's code, for `submit_run`."""
    with WorkspaceProcessContext(instance, InProcessTestWorkspaceLoadTarget(CODE)) as process:
        yield process.create_request_context()
