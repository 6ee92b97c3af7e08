"""A full queue on a real worker: what starts first, what expires, what is revoked, and JobRun matches Dagster's runs.

Everything is queued while the worker is down, so that the result does not depend on timing.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import InProcessTestWorkspaceLoadTarget, create_run_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import BaseWorkspaceRequestContext, WorkspaceProcessContext
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import environment_for_child
from seedtrust_ops.monitoring.job_run_mapper import status_of
from seedtrust_ops.tables import JobRun
from seedtrust_ops_tests.support.dagster_homes import DagsterHome
from seedtrust_ops_tests.support.waiters import wait_until

LEAST_SEVERE_FIRST = ["off_site_tracking", "account_balance_reminders", "case_close_reminders", "dr_auto_approval"]
# Same location name as the worker's: Dagster's launcher uses the code server of the location that a run names.
CODE = InProcessCodeLocationOrigin(
    LoadableTargetOrigin(module_name="seedtrust_ops.definitions"), location_name="seedtrust_ops"
)


@contextmanager
def worker(home: DagsterHome, variables: Mapping[str, str], log: Path) -> Iterator[None]:
    """Run `seedtrust-ops worker` with every schedule and sensor off, except those that are always on."""
    command = [sys.executable, "-m", "seedtrust_ops.cli.main", "worker"]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            env=environment_for_child(dict(variables) | home.variables | {"DEV_ENV": "1"}),
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
    """Queue a run of the job with the job's own run tags; return its id."""
    (location,) = workspace.code_locations
    job = location.get_repository("__repository__").get_full_job(job_name)
    run = create_run_for_test(
        instance,
        job_name=job_name,
        run_config=changes.get("run_config"),
        tags=dict(job.run_tags),
        remote_job_origin=job.get_remote_origin(),
        job_code_origin=job.get_python_origin(),
    )
    instance.submit_run(run.run_id, workspace)
    return run.run_id


@pytest.mark.usefixtures("daemon_processes")
@pytest.mark.timeout(600)
def test_queue_starts_most_severe_run_first_after_downtime(
    instance: dg.DagsterInstance,
    dagster_home: DagsterHome,
    bank_environment: dict[str, str],
    sessions: sessionmaker[Session],
    tmp_path: Path,
) -> None:
    settings = dagster_home.folder / "dagster.yaml"
    text = settings.read_text()
    assert "max_concurrent_runs: 10" in text
    settings.write_text(text.replace("max_concurrent_runs: 10", "max_concurrent_runs: 1"))
    with WorkspaceProcessContext(instance, InProcessTestWorkspaceLoadTarget(CODE)) as process:
        workspace = process.create_request_context()
        waiting = [submit_run(instance, workspace, name) for name in LEAST_SEVERE_FIRST]
        expired = submit_run(instance, workspace, "auto_heal_huntington_batches")
        dagster_home.backdate_run(expired, 3600)
        revoked = submit_run(instance, workspace, "auto_heal_huntington_batches")
        instance.run_coordinator.cancel_run(revoked)
        config = {"ops": {"process_huntington_batch": {"config": {"batch_id": 4711}}}}
        failed = submit_run(instance, workspace, "process_huntington_batch", run_config=config)

    def read_job_runs() -> dict[str, JobRun]:
        with sessions() as session:
            return {run.run_id: run for run in session.scalars(select(JobRun))}

    with worker(dagster_home, bank_environment, tmp_path / "worker.log"):
        runs = {*waiting, expired, revoked, failed}
        wait_until(
            lambda: runs == {run_id for run_id, run in read_job_runs().items() if run.resolution is not None},
            seconds=400,
            every=0.5,
            what="all runs to have ended in JobRun",
        )
    job_runs = read_job_runs()
    records = {record.dagster_run.run_id: record for record in instance.get_run_records()}
    assert {run_id: run.status for run_id, run in job_runs.items()} == {
        run_id: status_of(record.dagster_run) for run_id, record in records.items()
    }
    assert [job_runs[run_id].status for run_id in (expired, revoked, failed)] == ["EXPIRED", "REVOKED", "ERROR"]
    assert "There is no batch 4711." in (job_runs[failed].error or "")
    assert {job_runs[run_id].status for run_id in waiting} == {"COMPLETED"}
    assert all(job_runs[run_id].result for run_id in waiting)
    by_start = sorted((failed, *waiting), key=lambda run_id: records[run_id].start_time or 0)
    assert set(by_start[:2]) == {failed, waiting[-1]}
    assert by_start[2:] == list(reversed(waiting[:-1]))
    # No step of the expired run was executed.
    assert not any(entry.step_key for entry in instance.all_logs(expired))
