"""A backfill of four months on a real worker: it is one run that does each day, and no batch or report waits for it."""

import time
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES, BulkActionStatus, PartitionBackfill

from seedtrust_ops.orchestration.schedules import office_today
from seedtrust_ops_tests.supervisor.queueing_worker import open_workspace, submit_run, worker
from seedtrust_ops_tests.support.dagster_homes import DagsterHome
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.waiters import wait_until

ASSET = dg.AssetKey("huntington_transfers")
UNLISTED_LIMIT = 5
DAYS = [str(office_today() - timedelta(days=back)) for back in range(121, 0, -1)]
MAX_WAIT_SECONDS = 10.0
"""How long a batch and a report may wait in the queue; behind the backfill they would wait for minutes."""
STATUS = dg.DagsterRunStatus

pytestmark = [pytest.mark.usefixtures("daemon_processes"), pytest.mark.timeout(600)]


def asset_runs(instance: dg.DagsterInstance, *statuses: dg.DagsterRunStatus) -> list[dg.DagsterRun]:
    return instance.get_runs(dg.RunsFilter(job_name="__ASSET_JOB", statuses=list(statuses) or None))


def seconds_in_queue(instance: dg.DagsterInstance, run: dg.DagsterRun) -> float:
    queued, starting = (
        instance.all_logs(run.run_id, of_type=kind)[0].timestamp
        for kind in (dg.DagsterEventType.RUN_ENQUEUED, dg.DagsterEventType.RUN_STARTING)
    )
    return starting - queued


def test_runs_for_each_day_keep_no_batch_and_no_report_waiting(
    instance: dg.DagsterInstance,
    dagster_home: DagsterHome,
    jobs_environment: dict[str, str],
    company: Company,
    tmp_path: Path,
) -> None:
    # The batch is launched by its sensor, as in production.
    variables = jobs_environment | {"DEV_ENV": "0", "SEEDTRUST_SENSOR_WAIT_SECONDS": "9.5"}
    with open_workspace(instance) as workspace:
        for day in DAYS:
            selection = {"asset_selection": frozenset({ASSET}), "tags": {"dagster/partition": day}}
            submit_run(instance, workspace, "__ASSET_JOB", **selection)
        with worker(dagster_home, variables, tmp_path / "worker.log"):
            wait_until(
                lambda: len(asset_runs(instance, STATUS.STARTED)) == UNLISTED_LIMIT,
                seconds=240,
                what="the runs for each day to take all the slots that they may have",
            )
            batch_id = company.batch([1_000, 2_000])
            report_run = submit_run(instance, workspace, "report_generation")
            wait_until(lambda: company.batch_row(batch_id).status == "completed", seconds=240, what="the batch")
            still_queued = asset_runs(instance, STATUS.QUEUED)
    waited = {
        run.job_name: seconds_in_queue(instance, run)
        for run in instance.get_runs()
        if run.run_id == report_run or run.job_name == "process_huntington_batch"
    }
    assert waited.keys() == {"process_huntington_batch", "report_generation"}
    assert max(waited.values()) < MAX_WAIT_SECONDS, waited
    assert len(still_queued) > len(DAYS) / 2


def test_backfill_of_121_days_is_one_run_that_does_each_day(
    instance: dg.DagsterInstance, dagster_home: DagsterHome, jobs_environment: dict[str, str], tmp_path: Path
) -> None:
    with open_workspace(instance) as workspace:
        backfill = PartitionBackfill.from_asset_partitions(
            backfill_id="months",
            asset_graph=workspace.asset_graph,
            partition_names=DAYS,
            asset_selection=[ASSET],
            backfill_timestamp=time.time(),
            tags={},
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )
    instance.add_backfill(backfill)

    def status() -> BulkActionStatus:
        found = instance.get_backfill("months")
        assert found is not None
        return found.status

    with worker(dagster_home, jobs_environment, tmp_path / "worker.log"):
        wait_until(
            lambda: status() in BULK_ACTION_TERMINAL_STATUSES,
            seconds=400,
            every=0.5,
            what="the backfill",
        )
    assert status() is BulkActionStatus.COMPLETED_SUCCESS
    (run,) = asset_runs(instance)
    assert (run.tags["dagster/priority"], run.tags["seedtrust/severity"]) == ("0", "HIGH")
    assert instance.get_materialized_partitions(ASSET) == set(DAYS)
    checks = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(ASSET, "agrees_with_bank"), limit=len(DAYS)
    )
    assert {check.run_id for check in checks} == {run.run_id}
