"""The run launcher that `dagster.yaml` names: passes each run to the run host, and finds a run's worker by its tag.

Dagster's own launcher is used on platforms other than Linux, and if the installed version of Dagster lacks what this
one needs. How a run is started is in `run_host`.
See docs/decisions/warm-launcher.md.
"""

import logging
import sys
from pathlib import Path
from typing import Any

from dagster import DagsterRun, DagsterRunStatus, DefaultRunLauncher, serialize_value
from sqlalchemy.exc import SQLAlchemyError

from seedtrust_ops.config import environment_for_child
from seedtrust_ops.dagster_instance import resolve_in_dagster_home
from seedtrust_ops.dagster_internals import (
    WARM_LAUNCHER,
    CheckRunHealthResult,
    DagsterPostgresException,
    EngineEventData,
    ExecuteRunArgs,
    LaunchRunContext,
    ModuleCodePointer,
    WorkerStatus,
    is_available,
)
from seedtrust_ops.launcher.host_client import LAUNCHER_FOLDER, RunHostClient
from seedtrust_ops.launcher.wire_protocol import CodeToLoad, LaunchRequest
from seedtrust_ops.launcher.worker_identity import WorkerIdentity
from seedtrust_ops.run_admission import require_startable

_logger = logging.getLogger(__name__)


class WarmRunLauncher(DefaultRunLauncher):
    """Launches each run as a fork of a process that has already loaded its code."""

    def __init__(self, folder: Path, inst_data: Any = None) -> None:
        super().__init__(inst_data)
        self._run_host = RunHostClient(folder)

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Any:
        """Return the launcher, or Dagster's own on platforms other than Linux or if Dagster lacks a name."""
        if sys.platform != "linux" or not is_available(WARM_LAUNCHER):
            return DefaultRunLauncher(inst_data)
        return cls(Path(resolve_in_dagster_home(str(LAUNCHER_FOLDER))), inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the run's worker.

        Raises:
            RunRefused: if the run's tags or code are not those that the queue accepted.
            RunNotStarted: if the run host cannot be reached or could not start the run.
        """
        run = context.dagster_run
        require_startable(run)
        origin = run.job_code_origin
        assert origin is not None, "a run without it is not startable"
        arguments = ExecuteRunArgs(job_origin=origin, run_id=run.run_id, instance_ref=self._instance.get_ref())
        response = self._run_host.launch(
            LaunchRequest(
                run_id=run.run_id,
                arguments=serialize_value(arguments),
                code=_code_to_load(run),
                environment=environment_for_child({}),
                working_directory=str(Path.cwd()),
            )
        )
        if response.cold is None:
            start = f"Warm start: process {response.pid} was forked from the zygote."
        else:
            start = f"Cold start: process {response.pid} was started without a zygote, because {response.cold}."
        try:
            self._instance.report_engine_event(start, run, EngineEventData({"pid": str(response.pid)}), cls=type(self))
        except (SQLAlchemyError, DagsterPostgresException) as error:
            # If this raised, Dagster would treat it as a failed launch and fail a run whose worker is running.
            _logger.warning(
                "Run %s: %s This could not be written to the run's event log (%s); the run continues.",
                run.run_id,
                start,
                type(error).__name__,
            )

    def terminate(self, run_id: str) -> bool:
        """Interrupt the run's worker, or report the run canceled if the worker is gone; return whether that worked."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        # Read the tags after the status is written: a worker without a tag yet will see the status before it executes.
        run = self._instance.get_run_by_id(run_id)
        worker = None if run is None else WorkerIdentity.from_tags(run.tags)
        if run is None or worker is None:
            return True
        if worker.is_on_other_host:
            self._instance.report_engine_event(
                f"The run's worker is {worker}. It can be interrupted only from that host.", run, cls=type(self)
            )
            return False
        if not worker.interrupt():
            self._report_canceled(run_id, worker)
        return True

    def _report_canceled(self, run_id: str, worker: WorkerIdentity) -> None:
        run = self._instance.get_run_by_id(run_id)
        if run is not None and run.status is DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(run, f"Canceled: the run's worker ({worker}) has already exited.")

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Return whether the run's worker is running. A worker that is not visible from this host counts as running."""
        worker = WorkerIdentity.from_tags(run.tags)
        if worker is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "The run was not started by this launcher.")
        if worker.is_on_other_host:
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"Its worker is {worker}.", run_worker_id=str(worker))
        if worker.is_alive:
            return CheckRunHealthResult(WorkerStatus.RUNNING, run_worker_id=str(worker))
        return CheckRunHealthResult(
            WorkerStatus.FAILED, f"The run's worker ({worker}) crashed.", transient=False, run_worker_id=str(worker)
        )

    def dispose(self) -> None:
        self._run_host.disconnect()


def _code_to_load(run: DagsterRun) -> CodeToLoad:
    assert run.job_code_origin is not None, "a run without it is not startable"
    python, pointer = run.job_code_origin.executable_path, run.job_code_origin.get_repo_pointer()
    if isinstance(pointer, ModuleCodePointer):
        return CodeToLoad(python, pointer.module, pointer.working_directory)
    return CodeToLoad(python, None, None)
