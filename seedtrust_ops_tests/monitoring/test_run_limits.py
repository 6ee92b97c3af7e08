"""Which queued runs Dagster starts next, according to its own coordinator with the project's dagster.yaml.

CRITICAL first, one run of a job at a time, batches in parallel up to a limit, and LOW runs never occupy all slots.
"""

from collections import Counter
from collections.abc import Sequence

import dagster as dg
import pytest
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

from seedtrust_ops.definitions import defs
from seedtrust_ops.job_policies import JOB_POLICIES, UNLISTED, job_policy, policy_tags
from seedtrust_ops.severity import Severity
from seedtrust_ops.tag_names import EXPIRES_TAG, PARALLEL_TAG, SEVERITY_TAG, SINGLETON_TAG
from seedtrust_ops_tests.monitoring.sample_runs import STATUS, new_run, queued_run, set_status

SLOTS = 10


def add_queued(instance: dg.DagsterInstance, *job_names: str) -> None:
    for name in job_names:
        queued_run(instance, job_name=name, tags=policy_tags(name))


def add_started(instance: dg.DagsterInstance, *job_names: str) -> None:
    for name in job_names:
        set_status(instance, new_run(instance, job_name=name, tags=policy_tags(name)), STATUS.STARTED)


def get_runs_to_dequeue(instance: dg.DagsterInstance) -> list[str]:
    """Return the jobs of the runs that Dagster would start now, in order."""
    coordinator = QueuedRunCoordinatorDaemon(interval_seconds=1)
    runs: Sequence[dg.DagsterRun] = coordinator._get_runs_to_dequeue(instance, instance.get_concurrency_config(), None)
    return [run.job_name for run in runs]


@pytest.mark.parametrize("job", defs.resolve_all_job_defs(), ids=lambda job: job.name)
def test_every_job_gives_its_runs_the_tags_of_its_policy(job: dg.JobDefinition) -> None:
    if job.name not in JOB_POLICIES:
        assert job.name.startswith("__ASSET_JOB")
        return
    policy = JOB_POLICIES[job.name]
    assert job.tags[SEVERITY_TAG] == policy.severity
    assert job.tags["dagster/priority"] == str(policy.severity.priority)
    assert job.tags.get(SINGLETON_TAG if policy.singleton else PARALLEL_TAG) == job.name
    limit = policy.expires_after
    assert job.tags.get(EXPIRES_TAG) == (None if limit is None else str(round(limit.total_seconds())))
    # A run that hangs must free its slot eventually.
    assert float(job.tags["dagster/max_runtime"]) == policy.max_runtime.total_seconds() > 0


def test_highest_severity_starts_first_regardless_of_queue_time(instance: dg.DagsterInstance) -> None:
    add_started(instance, *["example"] * (SLOTS - 3))
    in_order = ["off_site_tracking", "aws_status_check", "case_close_reminders", "dr_auto_approval"]
    add_queued(instance, *in_order)
    assert get_runs_to_dequeue(instance) == list(reversed(in_order))[:3]


def test_occupied_slots_keep_every_run_queued(instance: dg.DagsterInstance) -> None:
    add_started(instance, *["process_huntington_batch"] * SLOTS)
    add_queued(instance, "dr_auto_approval")
    assert get_runs_to_dequeue(instance) == []


def test_singleton_jobs_run_one_at_a_time(instance: dg.DagsterInstance) -> None:
    add_started(instance, "report_generation")
    singletons = [name for name, policy in JOB_POLICIES.items() if policy.singleton]
    add_queued(instance, *singletons, *singletons)
    started = Counter(get_runs_to_dequeue(instance))
    assert set(started.values()) == {1}
    assert "report_generation" not in started


def test_batches_run_in_parallel_up_to_the_limit(instance: dg.DagsterInstance) -> None:
    add_started(instance, "process_huntington_batch")
    add_queued(instance, *["process_huntington_batch"] * 6, "off_site_tracking")
    assert get_runs_to_dequeue(instance) == ["process_huntington_batch"] * 3 + ["off_site_tracking"]


def test_low_severity_runs_never_occupy_all_slots(instance: dg.DagsterInstance) -> None:
    add_queued(instance, *["example"] * 2 * SLOTS)
    first = get_runs_to_dequeue(instance)
    assert len(first) < SLOTS
    add_started(instance, *first)
    add_queued(instance, "auto_heal_huntington_batches")
    assert get_runs_to_dequeue(instance) == ["auto_heal_huntington_batches"]


def test_runs_of_unlisted_jobs_leave_slots_to_every_listed_job(instance: dg.DagsterInstance) -> None:
    assert policy_tags("__ASSET_JOB")[PARALLEL_TAG] == UNLISTED
    add_queued(instance, *["__ASSET_JOB"] * 2 * SLOTS, "example")
    started = Counter(get_runs_to_dequeue(instance))
    assert started == {"__ASSET_JOB": SLOTS // 2, "example": 1}
    assert job_policy("__ASSET_JOB").severity is Severity.HIGH
