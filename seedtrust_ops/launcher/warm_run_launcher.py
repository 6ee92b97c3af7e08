"""The run launcher that `dagster.yaml` names: hands each run to the run host, and knows the run's worker by its tag.

Where there is no Linux, Dagster's own launcher does its work. How a run is started is the run host's.
"""

import logging
import sys
from pathlib import Path
from typing import Any

from dagster import DagsterRun, DagsterRunStatus
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.events import EngineEventData
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._core.origin import JobPythonOrigin
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData, serialize_value
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import SQLAlchemyError

from seedtrust_ops.config import environment_for_child
from seedtrust_ops.dagster_instance import under_dagster_home
from seedtrust_ops.launcher.host_client import RunHostClient
from seedtrust_ops.launcher.host_socket import LAUNCHER_FOLDER
from seedtrust_ops.launcher.wire_protocol import CodeToLoad, LaunchOrder
from seedtrust_ops.launcher.worker_identity import WorkerProcess

_logger = logging.getLogger(__name__)


class WarmRunLauncher(RunLauncher, ConfigurableClass):
    """Launches runs as forks of a process that has loaded their code already."""

    def __init__(self, folder: Path, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        self._run_host = RunHostClient(folder)
        super().__init__()  # type: ignore[no-untyped-call]  # Dagster's has no types

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> Any:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Any:
        """Return the launcher; Dagster's own where this is not Linux."""
        if sys.platform != "linux":
            return DefaultRunLauncher(inst_data)
        return cls(Path(under_dagster_home(str(LAUNCHER_FOLDER))), inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the run's worker.

        Raises:
            RunNotStarted: when the run host could not.
        """
        run = context.dagster_run
        origin = run.job_code_origin
        assert origin is not None, "Dagster launches no run without knowing its code"
        arguments = ExecuteRunArgs(job_origin=origin, run_id=run.run_id, instance_ref=self._instance.get_ref())
        answer = self._run_host.launch(
            LaunchOrder(
                run_id=run.run_id,
                arguments=serialize_value(arguments),
                code=_code_to_load(origin),
                environment=environment_for_child({}),
                working_directory=str(Path.cwd()),
            )
        )
        how = "forked from a warm process" if answer.cold is None else f"started cold, because {answer.cold}"
        try:
            self._instance.report_engine_event(
                f"Process {answer.pid} was {how}.", run, EngineEventData({"pid": str(answer.pid)}), cls=type(self)
            )
        except (SQLAlchemyError, DagsterPostgresException) as error:
            # Dagster would take it for a failed launch and fail the run, whose worker lives.
            _logger.warning(
                "Run %s: process %s was %s, which could not be written to its history: %s",
                run.run_id,
                answer.pid,
                how,
                type(error).__name__,
            )

    def terminate(self, run_id: str) -> bool:
        """Cancel the run: interrupt its worker, or close the run where that one is gone; return whether it was done."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        # Read after the status is written: a worker that is not named yet will see the status before it executes.
        run = self._instance.get_run_by_id(run_id)
        worker = None if run is None else WorkerProcess.of(run.tags)
        if run is None or worker is None:
            return True
        if worker.is_elsewhere:
            self._instance.report_engine_event(
                f"The run's worker is {worker}, and can be interrupted only from there.", run, cls=type(self)
            )
            return False
        if not worker.interrupt():
            self._close_without_worker(run_id, worker)
        return True

    def _close_without_worker(self, run_id: str, worker: WorkerProcess) -> None:
        run = self._instance.get_run_by_id(run_id)
        if run is not None and run.status is DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(run, f"The run's worker ({worker}) is gone.")

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Return whether the run's worker lives. What can't be seen from here is taken to live."""
        worker = WorkerProcess.of(run.tags)
        if worker is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "The run was not started by this launcher.")
        if worker.is_elsewhere:
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"Its worker is {worker}.", run_worker_id=str(worker))
        if worker.is_alive:
            return CheckRunHealthResult(WorkerStatus.RUNNING, run_worker_id=str(worker))
        return CheckRunHealthResult(
            WorkerStatus.FAILED, f"Its worker ({worker}) is gone.", transient=False, run_worker_id=str(worker)
        )

    def dispose(self) -> None:
        self._run_host.hang_up()


def _code_to_load(origin: JobPythonOrigin) -> CodeToLoad:
    pointer = origin.get_repo_pointer()
    if isinstance(pointer, ModuleCodePointer):
        return CodeToLoad(origin.executable_path, pointer.module, pointer.working_directory)
    return CodeToLoad(origin.executable_path, None, None)
