"""A full queue on a real worker: what starts first, what expires, what is revoked, and JobRun matches Dagster's runs.

Everything is queued while the worker is down, so that the result does not depend on timing.
"""

from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.monitoring.job_run_mapper import status_of
from seedtrust_ops.tables import JobRun
from seedtrust_ops_tests.supervisor.queueing_worker import open_workspace, submit_run, worker
from seedtrust_ops_tests.support.dagster_homes import DagsterHome
from seedtrust_ops_tests.support.waiters import wait_until

LEAST_SEVERE_FIRST = ["off_site_tracking", "account_balance_reminders", "case_close_reminders", "dr_auto_approval"]


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
    with open_workspace(instance) as workspace:
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
