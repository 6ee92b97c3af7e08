"""Launches runs of the quick jobs from the test's own process, without a daemon, as the command line could.

What is launched and what becomes of it is the tests'.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import serialize_value

from seedtrust_ops_tests.launcher import quick_jobs
from seedtrust_ops_tests.launcher.quick_daemon import JOBS


class QuickLaunches:
    """Runs that this process launches, with the code in a folder of their own."""

    def __init__(self, instance: dg.DagsterInstance, code: Path) -> None:
        self.instance = instance
        self._code = code

    def created(self, job: str, run_config: dict[str, Any]) -> str:
        """A run that is about to be launched; its id."""
        return self.instance.create_run_for_job(
            quick_jobs.definitions.resolve_job_def(job),
            run_config=run_config,
            status=dg.DagsterRunStatus.NOT_STARTED,
            job_code_origin=self._origin(job),
        ).run_id

    def launched(self, job: str, run_config: dict[str, Any]) -> str:
        """A run that was launched; its id."""
        run_id = self.created(job, run_config)
        self.instance.launch_run(run_id, workspace=None)  # type: ignore[arg-type]  # nothing asks for one
        return run_id

    def arguments(self, job: str, run_id: str) -> str:
        """What `dagster api execute_run` is given for the run."""
        return serialize_value(ExecuteRunArgs(self._origin(job), run_id, self.instance.get_ref()))

    def _origin(self, job: str) -> JobPythonOrigin:
        pointer = ModuleCodePointer("quick_jobs", "definitions", str(self._code))
        return JobPythonOrigin(job, RepositoryPythonOrigin(sys.executable, pointer))


@contextmanager
def quick_launches(instance: dg.DagsterInstance, folder: Path) -> Iterator[QuickLaunches]:
    """Launch from `folder`, into which the quick jobs are put."""
    shutil.copy(JOBS, folder / "quick_jobs.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield QuickLaunches(instance, folder)
