"""Runs over partitions: an asset's backfill is one run, and a partition that does not exist is refused."""

import dagster as dg
import pytest

from seedtrust_ops.definitions import defs

PARTITIONED = sorted(
    str(key.to_user_string())
    for key in defs.resolve_asset_graph().get_all_asset_keys()
    if defs.resolve_asset_graph().get(key).is_partitioned
)


@pytest.mark.parametrize("asset", PARTITIONED)
def test_backfill_of_an_asset_is_one_run(asset: str) -> None:
    policy = defs.resolve_asset_graph().get(dg.AssetKey(asset)).backfill_policy
    assert policy == dg.BackfillPolicy.single_run()


@pytest.mark.parametrize("partition", ["1999-12-31", "2100-01-03"])
@pytest.mark.parametrize("asset", PARTITIONED)
def test_partition_that_does_not_exist_is_refused(asset: str, partition: str, jobs_environment: dict[str, str]) -> None:
    job = next(job for job in defs.resolve_all_job_defs() if job.name.startswith("__ASSET_JOB"))
    result = job.execute_in_process(
        tags={"dagster/partition": partition}, asset_selection=[dg.AssetKey(asset)], raise_on_error=False
    )
    assert not result.success
    (failure, *_) = [event for event in result.all_events if event.is_step_failure]
    assert f"There is no partition {partition}: the first is 2026-01-0" in str(
        failure.step_failure_data.user_failure_data
    )
