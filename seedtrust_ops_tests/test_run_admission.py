"""Which tags a run may have, by who launched it: the cases of `run_admission`, and the queue that applies them."""

import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.code_pointer import (
    CodePointer,
    CustomPointer,
    FileCodePointer,
    ModuleCodePointer,
    PackageCodePointer,
)
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.storage import tags as dagster_tags
from dagster._core.test_utils import create_run_for_test
from dagster._serdes import serialize_value
from sqlalchemy import create_engine, text

from seedtrust_ops.job_policies import JOB_POLICIES, policy_tags, run_tags
from seedtrust_ops.run_admission import (
    CONTAINER_TAGS,
    OWN_DEFINITIONS,
    POLICY_TAGS,
    RunRefused,
    check_tags,
    require_startable,
    with_own_code,
)
from seedtrust_ops_tests.monitoring.sample_runs import SOME_JOB
from seedtrust_ops_tests.support.dagster_homes import DagsterHome

JOB = "dr_auto_approval"
BATCH_JOB = "process_huntington_batch"
CONTAINER = {
    "dagster-k8s/config": '{"container_config": {"image": "evil"}}',
    "dagster-k8s/resource_requirements": "{}",
    "ecs/container_overrides": '{"command": ["sh"]}',
    "ecs/task_overrides": '{"taskRoleArn": "arn:aws:iam::1:role/admin"}',
    "ecs/run_task_kwargs": '{"taskDefinition": "evil"}',
    "ecs/task_arn": "arn:aws:ecs:us-east-1:1:task/the-daemon",
    "ecs/cpu": "16384",
    "docker/image": "evil",
    "dagster-celery/queue": "evil",
    "dagster/image": "evil",
    "dagster/isolation": "disabled",
}
POLICY = {
    "seedtrust/severity": "LOW",
    "seedtrust/group": "cases",
    "seedtrust/expires_in_seconds": "0.001",
    "seedtrust/singleton": "another job",
    "seedtrust/parallel": JOB,
    "dagster/priority": "4001",
    "dagster/max_runtime": "1",
    "dagster/max_runtime_seconds": "1",
    "dagster/max_retries": "1000",
    "dagster/concurrency_key": "one",
    "dagster/defer_asset_events": "true",
}
RECORDS = {
    "seedtrust/due": "9999-12-31",
    "seedtrust/reason": "because",
    "seedtrust/batch_id": "7",
    "seedtrust/generation": "1",
    "seedtrust/halted": "true",
    "seedtrust/expired": "some run",
    "seedtrust/shadow": "true",
    "seedtrust/progress": "1 of 1",
    "seedtrust/run_worker": '{"host": "here", "pid": 1, "boot": "", "started": 1}',
    "seedtrust/of_a_later_release": "yes",
    "dagster/schedule_name": "dr_auto_approval_schedule",
    "dagster/sensor_name": "huntington_batch_sensor",
    "dagster/tick": "12",
    "dagster/run_key": "huntington-batch-7-generation-1-try-1",
    ".dagster/scheduled_execution_time": "2026-03-02T11:00:00+00:00",
    ".dagster/grpc_info": '{"host": "evil"}',
}
BACKFILL = {"dagster/backfill": "abcdefgh", "dagster/root_backfill_id": "abcdefgh"}
LABELS = {
    "user": "user:7",
    "team": "operations",
    "platform/case": "ST-1042",
    "seedtrust/launched_from": "platform-api",
    "seedtrust/request_id": "4711",
    "dagster/partition": "2026-03-01",
    "dagster/partition/region": "west",
    "dagster/asset_partition_range_start": "2026-03-01",
    "dagster/is_resume_retry": "true",
}


def new_run(tags: dict[str, str], job: str = JOB) -> dg.DagsterRun:
    return dg.DagsterRun(job_name=job, tags=tags)


def check_from_web(tags: dict[str, str], parent: dg.DagsterRun | None = None, job: str = JOB) -> dict[str, str]:
    return check_tags(new_run(tags, job), parent=parent, from_web=True)


@pytest.mark.parametrize("tag", [*CONTAINER, *POLICY, *RECORDS, *BACKFILL])
@pytest.mark.parametrize("job", [JOB, "__ASSET_JOB"])
def test_tag_that_changes_what_a_run_is_is_refused_from_the_web(tag: str, job: str) -> None:
    value = (CONTAINER | POLICY | RECORDS | BACKFILL)[tag]
    if policy_tags(job).get(tag) == value:
        return
    with pytest.raises(RunRefused, match=tag) as refusal:
        check_from_web(policy_tags(job) | LABELS | {tag: value}, job=job)
    assert refusal.value.tags == (tag,)


@pytest.mark.parametrize("job", [*JOB_POLICIES, "__ASSET_JOB"])
def test_labels_and_the_policys_own_tags_are_accepted(job: str) -> None:
    assert check_from_web(policy_tags(job) | LABELS, job=job) == {}


def test_tags_that_a_run_lacks_follow_from_its_policy() -> None:
    assert check_from_web({}) == policy_tags(JOB)
    backfilled = check_tags(new_run(BACKFILL, "__ASSET_JOB"), parent=None, from_web=False)
    assert (backfilled["dagster/priority"], backfilled["seedtrust/severity"]) == ("0", "HIGH")


def test_reexecution_keeps_its_parents_records_but_not_an_older_policy() -> None:
    launched_by_ecs = {"ecs/task_arn": "arn", "ecs/cluster": "c", "dagster/image": "i"}
    parent = new_run(policy_tags(JOB) | POLICY | RECORDS | launched_by_ecs | LABELS)
    corrected = check_from_web(dict(parent.tags), parent)
    assert corrected.keys() == POLICY.keys()
    assert {name: value for name, value in corrected.items() if value} == {
        name: value for name, value in policy_tags(JOB).items() if name in POLICY
    }


@pytest.mark.parametrize(
    ("parent_tags", "parent_job", "tags"),
    [
        ({"seedtrust/due": "2026-03-01"}, JOB, {"seedtrust/due": "9999-12-31"}),
        ({"seedtrust/severity": "MEDIUM"}, JOB, {"seedtrust/severity": "LOW"}),
        ({"seedtrust/batch_id": "7"}, BATCH_JOB, {"seedtrust/batch_id": "7"}),
        ({"ecs/container_overrides": "{}"}, JOB, {"ecs/container_overrides": "{}"}),
    ],
)
def test_reexecution_cannot_change_or_borrow_records(
    parent_tags: dict[str, str], parent_job: str, tags: dict[str, str]
) -> None:
    with pytest.raises(RunRefused):
        check_from_web(policy_tags(JOB) | tags, new_run(parent_tags, parent_job))


@pytest.mark.parametrize(
    ("priority", "corrected"), [(500, None), (-500, None), ("9999", "3000"), ("2500", "3000"), ("high", "3000")]
)
def test_sensor_may_raise_a_run_only_within_its_severity(priority: int | str, corrected: str | None) -> None:
    tags = policy_tags(BATCH_JOB) | {"dagster/sensor_name": "huntington_batch_sensor", "seedtrust/batch_id": "7"}
    if isinstance(priority, int):
        tags |= run_tags(BATCH_JOB, priority_offset=priority)
    else:
        tags["dagster/priority"] = priority
    expected = {} if corrected is None else {"dagster/priority": corrected}
    assert check_tags(new_run(tags, BATCH_JOB), parent=None, from_web=False) == expected


@pytest.mark.parametrize("tags", [{"dagster/run_key": "7"}, {"ecs/cpu": "1"}, {"seedtrust/severity": "LOW"}])
def test_backfills_tags_are_its_launchers_not_a_schedules(tags: dict[str, str]) -> None:
    forged = {"dagster/schedule_name": "dr_auto_approval_schedule"}
    assert check_tags(new_run(policy_tags(JOB) | BACKFILL), parent=None, from_web=False) == {}
    for more in ({}, forged):
        with pytest.raises(RunRefused, match=next(iter(tags))):
            check_tags(new_run(policy_tags(JOB) | BACKFILL | tags | more), parent=None, from_web=False)


def test_tags_that_dagster_lets_people_edit_are_all_covered() -> None:
    assert set(dagster_tags.USER_EDITABLE_SYSTEM_TAGS) <= POLICY_TAGS | CONTAINER_TAGS


class WebRequest:
    """A workspace as the web server passes it to the queue."""

    source = object()


def submit(instance: dg.DagsterInstance, tags: dict[str, str], *, workspace: Any = WebRequest, **fields: Any) -> str:
    origin = JobPythonOrigin(JOB, RepositoryPythonOrigin(sys.executable, OWN_POINTER))
    run = create_run_for_test(
        instance, job_name=JOB, tags=tags, remote_job_origin=SOME_JOB, job_code_origin=origin, **fields
    )
    instance.submit_run(run.run_id, workspace=workspace)
    return run.run_id


OWN_POINTER = ModuleCodePointer(*OWN_DEFINITIONS.split(":"), "/somewhere")


def read_run(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run


def test_refused_run_fails_with_the_sentence_and_loses_the_tags(instance: dg.DagsterInstance) -> None:
    forged = {"dagster/schedule_name": "dr_auto_approval_schedule", "seedtrust/due": "9999-12-31"}
    with pytest.raises(RunRefused):
        submit(instance, policy_tags(JOB) | LABELS | forged)
    (run,) = instance.get_runs()
    assert run.status is dg.DagsterRunStatus.FAILURE
    sentence = "refused because of its tags dagster/schedule_name, seedtrust/due."
    assert [entry for entry in instance.all_logs(run.run_id) if sentence in entry.message]
    # The schedule looks for its last run, and a client for the run of its request, by these tags.
    for name, value in {**forged, "seedtrust/request_id": LABELS["seedtrust/request_id"]}.items():
        assert not instance.get_runs(dg.RunsFilter(tags={name: value}))


def test_queue_sets_the_policys_tags_before_dagster_can_start_a_run(instance: dg.DagsterInstance) -> None:
    run = read_run(instance, submit(instance, {"user": "user:7"}))
    assert run.status is dg.DagsterRunStatus.QUEUED
    assert policy_tags(JOB).items() <= run.tags.items()
    child = read_run(instance, submit(instance, dict(run.tags), parent_run_id=run.run_id, root_run_id=run.run_id))
    assert child.status is dg.DagsterRunStatus.QUEUED


def test_launch_with_its_policys_tags_costs_no_further_statement(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        pytest.fail("The queue wrote tags that the run already has.")

    monkeypatch.setattr(dg.DagsterInstance, "add_run_tags", refuse)
    assert read_run(instance, submit(instance, policy_tags(JOB) | LABELS)).status is dg.DagsterRunStatus.QUEUED


FOREIGN_POINTERS: list[CodePointer] = [
    ModuleCodePointer("antigravity", "defs", None),
    ModuleCodePointer("seedtrust_ops.definitions", "dg", None),
    PackageCodePointer("seedtrust_ops.definitions", "defs", None),
    FileCodePointer("/tmp/evil.py", "defs", None),
    CustomPointer(ModuleCodePointer("os", "system"), ["true"], []),
]


@pytest.mark.parametrize("pointer", FOREIGN_POINTERS, ids=lambda pointer: type(pointer).__name__)
def test_run_that_names_other_code_is_read_without_it(
    instance: dg.DagsterInstance, dagster_home: DagsterHome, pointer: CodePointer
) -> None:
    run_id = submit(instance, {})
    overwrite_origin(instance, dagster_home, run_id, RepositoryPythonOrigin(sys.executable, pointer))
    (record,) = instance.get_run_records()
    for run in (read_run(instance, run_id), record.dagster_run, *instance.get_runs()):
        assert run.job_code_origin is None
        with pytest.raises(RunRefused, match="names other code"):
            require_startable(run)


def test_run_is_read_with_this_processs_own_program_folder_and_image(
    instance: dg.DagsterInstance, dagster_home: DagsterHome
) -> None:
    run_id = submit(instance, {})
    pointer = OWN_POINTER._replace(working_directory="/tmp/evil")
    origin = RepositoryPythonOrigin(
        "/tmp/evil/python", pointer, "evil", ["sh", "-c", "evil"], {"k8s": {"service_account_name": "evil"}}
    )
    overwrite_origin(instance, dagster_home, run_id, origin)
    run = read_run(instance, run_id)
    assert "evil" not in serialize_value(run)
    assert run.job_code_origin is not None
    assert run.job_code_origin.repository_origin.executable_path == sys.executable
    assert run.job_code_origin.get_repo_pointer() == OWN_POINTER._replace(working_directory=str(Path.cwd()))
    require_startable(run)


def test_stored_container_tag_is_refused_by_the_launchers(instance: dg.DagsterInstance) -> None:
    run_id = submit(instance, {})
    instance.add_run_tags(run_id, {"ecs/task_arn": "arn", "dagster/image": "recorded by the launcher"})
    require_startable(read_run(instance, run_id))
    instance.add_run_tags(run_id, {"ecs/container_overrides": "{}"})
    with pytest.raises(RunRefused, match="ecs/container_overrides would choose its container"):
        require_startable(read_run(instance, run_id))


def overwrite_origin(
    instance: dg.DagsterInstance, home: DagsterHome, run_id: str, origin: RepositoryPythonOrigin
) -> None:
    """Write into Dagster's database which code a run has, as somebody with its password can."""
    run = read_run(instance, run_id)._replace(job_code_origin=JobPythonOrigin(JOB, origin))
    assert with_own_code(run, OWN_DEFINITIONS) != run
    engine = create_engine(home.storage_url)
    with engine.begin() as connection:
        connection.execute(
            text("update runs set run_body = :body where run_id = :run_id"),
            {"body": serialize_value(run), "run_id": run_id},
        )
    engine.dispose()
