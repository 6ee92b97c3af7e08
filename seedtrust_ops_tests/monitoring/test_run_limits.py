"""Which queued runs Dagster starts next, asked of its own coordinator with the project's dagster.yaml and real runs.

CRITICAL first, one run of a job at a time, batches side by side up to a limit, and LOW ones never in all places.
"""

from collections import Counter
from collections.abc import Sequence

import dagster as dg
import pytest
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

from seedtrust_ops.definitions import defs
from seedtrust_ops.job_policies import EXPIRES_TAG, JOB_POLICIES, PARALLEL_TAG, SEVERITY_TAG, SINGLETON_TAG, queue_tags
from seedtrust_ops.severity import run_tags
from seedtrust_ops_tests.monitoring.sample_runs import STATUS, becomes, new_run, queued_run

PLACES = 10


def tags_of(job_name: str) -> dict[str, str]:
    return run_tags(JOB_POLICIES[job_name].severity) | queue_tags(job_name)


def queued(instance: dg.DagsterInstance, *job_names: str) -> None:
    for name in job_names:
        queued_run(instance, job_name=name, tags=tags_of(name))


def under_way(instance: dg.DagsterInstance, *job_names: str) -> None:
    for name in job_names:
        becomes(instance, new_run(instance, job_name=name, tags=tags_of(name)), STATUS.STARTED)


def next_to_start(instance: dg.DagsterInstance) -> list[str]:
    """The jobs of the runs that Dagster would start now, first to last."""
    coordinator = QueuedRunCoordinatorDaemon(interval_seconds=1)
    runs: Sequence[dg.DagsterRun] = coordinator._get_runs_to_dequeue(instance, instance.get_concurrency_config(), None)
    return [run.job_name for run in runs]


@pytest.mark.parametrize("job", defs.resolve_all_job_defs(), ids=lambda job: job.name)
def test_every_job_gives_its_runs_the_tags_of_its_rules(job: dg.JobDefinition) -> None:
    if job.name not in JOB_POLICIES:
        assert job.name.startswith("__ASSET_JOB")
        return
    rules = JOB_POLICIES[job.name]
    assert job.tags[SEVERITY_TAG] == rules.severity
    assert job.tags["dagster/priority"] == str(rules.severity.priority)
    assert job.tags.get(SINGLETON_TAG if rules.singleton else PARALLEL_TAG) == job.name
    allowed = rules.expires_after
    assert job.tags.get(EXPIRES_TAG) == (None if allowed is None else str(round(allowed.total_seconds())))
    # A run that hangs gives its place back some time.
    assert int(job.tags["dagster/max_runtime"]) > 0


def test_the_worst_start_first_however_late_they_came(instance: dg.DagsterInstance) -> None:
    under_way(instance, *["example"] * (PLACES - 3))
    in_order = ["off_site_tracking", "aws_status_check", "case_close_reminders", "dr_auto_approval"]
    queued(instance, *in_order)
    assert next_to_start(instance) == list(reversed(in_order))[:3]


def test_with_all_places_taken_nothing_starts(instance: dg.DagsterInstance) -> None:
    under_way(instance, *["process_huntington_batch"] * PLACES)
    queued(instance, "dr_auto_approval")
    assert next_to_start(instance) == []


def test_one_run_of_a_job_at_a_time(instance: dg.DagsterInstance) -> None:
    under_way(instance, "report_generation")
    singletons = [name for name, rules in JOB_POLICIES.items() if rules.singleton]
    queued(instance, *singletons, *singletons)
    started = Counter(next_to_start(instance))
    assert set(started.values()) == {1}
    assert "report_generation" not in started


def test_batches_go_side_by_side_up_to_the_limit(instance: dg.DagsterInstance) -> None:
    under_way(instance, "process_huntington_batch")
    queued(instance, *["process_huntington_batch"] * 6, "off_site_tracking")
    assert next_to_start(instance) == ["process_huntington_batch"] * 3 + ["off_site_tracking"]


def test_what_can_wait_never_holds_all_places(instance: dg.DagsterInstance) -> None:
    queued(instance, *["example"] * 2 * PLACES)
    first = next_to_start(instance)
    assert len(first) < PLACES
    under_way(instance, *first)
    queued(instance, "auto_heal_huntington_batches")
    assert next_to_start(instance) == ["auto_heal_huntington_batches"]
