"""Launches runs of the quick jobs from the test's own process without a daemon, as the command line can.

The tests decide what to launch and check the result.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.code_pointer import CodePointer, ModuleCodePointer
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import serialize_value

from seedtrust_ops_tests.launcher import quick_jobs
from seedtrust_ops_tests.launcher.quick_daemon import JOBS_FILE


class QuickLaunches:
    """Runs launched by this process, with their code in a separate folder."""

    def __init__(self, instance: dg.DagsterInstance, code: Path) -> None:
        self.instance = instance
        self._code = code

    def create(self, job: str, run_config: dict[str, Any], *, code_pointer: CodePointer | None = None) -> str:
        """Create a run without launching it, of other code if `code_pointer` says so; return its id."""
        return self.instance.create_run_for_job(
            quick_jobs.definitions.resolve_job_def(job),
            run_config=run_config,
            status=dg.DagsterRunStatus.NOT_STARTED,
            job_code_origin=self._origin(job, code_pointer),
        ).run_id

    def launch(self, job: str, run_config: dict[str, Any]) -> str:
        """Launch a run; return its id."""
        run_id = self.create(job, run_config)
        self.instance.launch_run(run_id, workspace=None)  # type: ignore[arg-type]  # the launcher does not use it
        return run_id

    def arguments(self, job: str, run_id: str) -> str:
        """Return the serialized arguments of `dagster api execute_run` for the run."""
        return serialize_value(ExecuteRunArgs(self._origin(job), run_id, self.instance.get_ref()))

    def _origin(self, job: str, code_pointer: CodePointer | None = None) -> JobPythonOrigin:
        pointer = code_pointer or ModuleCodePointer("quick_jobs", "definitions", str(self._code))
        return JobPythonOrigin(job, RepositoryPythonOrigin(sys.executable, pointer))


@contextmanager
def quick_launches(instance: dg.DagsterInstance, folder: Path) -> Iterator[QuickLaunches]:
    """Yield launches from `folder`, into which the quick jobs are copied."""
    shutil.copy(JOBS_FILE, folder / "quick_jobs.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield QuickLaunches(instance, folder)
