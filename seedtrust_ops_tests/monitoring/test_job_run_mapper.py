"""The mapping of Dagster runs to JobRun: one table of cases per column."""

import math
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.dagster_run import DagsterRun
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.health.runs import WatchedJob, error_spike
from seedtrust_ops.domain.json_safe import PREVIEW_CHARACTERS
from seedtrust_ops.errors import InputError, SeedTrustError
from seedtrust_ops.monitoring.job_run_mapper import failure_to_record, status_of, to_run_snapshot
from seedtrust_ops.monitoring.run_events import RunEvents
from seedtrust_ops.orchestration.executor import in_process
from seedtrust_ops.orchestration.io_manager import in_memory_io_manager
from seedtrust_ops.orchestration.user_facing_failures import user_facing_failures
from seedtrust_ops.severity import Severity
from seedtrust_ops.tag_names import JOB_RUN_STATUSES, PROGRESS_TAG, SEVERITY_TAG
from seedtrust_ops_tests.monitoring.sample_runs import (
    EVENTS,
    STATUS,
    mirror_runs,
    new_run,
    row,
    set_status,
)


def test_every_dagster_status_maps_to_a_job_run_status(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    expected = {
        "NOT_STARTED": ("PENDING", None),
        "MANAGED": ("PENDING", None),
        "QUEUED": ("PENDING", None),
        "STARTING": ("PENDING", None),
        "STARTED": ("STARTED", None),
        "SUSPENDED": ("STARTED", None),
        "CANCELING": ("STARTED", None),
        "SUCCESS": ("COMPLETED", "COMPLETED"),
        "FAILURE": ("ERROR", "ERROR"),
        "CANCELED": ("REVOKED", "REVOKED"),
    }
    if "SUSPENDED" not in STATUS.__members__:
        del expected["SUSPENDED"]  # older versions of Dagster lack it
    assert set(expected) == set(STATUS.__members__)
    created_with_status = {"MANAGED", "SUSPENDED"}
    runs = {
        status: new_run(instance, **({"status": status} if status.name in created_with_status else {}))
        for status in STATUS
    }
    for status in EVENTS:
        set_status(instance, runs[status], status)
    assert mirror_runs(instance)[0] == len(runs)
    mirrored = {status: row(sessions, run_id) for status, run_id in runs.items()}
    assert {status.name: (job_run.status, job_run.resolution) for status, job_run in mirrored.items()} == expected


def test_unknown_dagster_status_is_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(JOB_RUN_STATUSES, "STARTED")
    assert status_of(dg.DagsterRun(job_name="any", status=STATUS.STARTED)) == "PENDING"


ARGUMENTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"ops": {"a": {"config": {"batch_id": 7}}}}, {"batch_id": 7}),
    ({"ops": {"a": {}}}, {}),
    ({"ops": {"a": None}}, {}),
    ({"ops": None}, {"ops": None}),
    ({"ops": {"a": {"config": None}}}, {}),
    ({"ops": {"a": {"config": 7}}}, {"config": 7}),
    ({"ops": {"a": {"config": [1, 2]}}}, {"config": [1, 2]}),
    ({"ops": {"a": {"config": {"note": "a\x00b"}}}}, {"note": "a�b"}),
    ({"ops": {"a": {"config": {"share": math.inf}}}}, {"share": "inf"}),
    (
        {"ops": {"a": {"config": {"note": "x" * 3_000_000}}}},
        {"too_large_bytes": 3_000_012, "begins_with": f'{{"note": "{"x" * (PREVIEW_CHARACTERS - 10)}'},
    ),
    (
        {"ops": {"a": {"config": {"x": 1}}, "b": {"config": {"y": 2}}}},
        {"ops": {"a": {"config": {"x": 1}}, "b": {"config": {"y": 2}}}},
    ),
    ({"resources": {"r": {"config": 1}}}, {"resources": {"r": {"config": 1}}}),
]


def test_arguments_are_the_config_of_the_only_op_or_the_run_config(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    runs = [(new_run(instance, run_config=run_config), arguments) for run_config, arguments in ARGUMENTS]
    mirror_runs(instance)
    assert [row(sessions, run_id).arguments for run_id, _ in runs] == [arguments for _, arguments in runs]


PRIORITIES = [
    (None, 0),
    ("3000", 3000),
    ("-5", -5),
    ("high", 0),
    ("", 0),
    ("99999999999999", 2**31 - 1),
    ("-" + "9" * 30, -(2**31)),
]


def test_priority_is_the_tag_clamped_or_zero_if_invalid(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    runs = [
        (new_run(instance, tags={} if tag is None else {"dagster/priority": tag}), priority)
        for tag, priority in PRIORITIES
    ]
    mirror_runs(instance)
    assert [row(sessions, run_id).priority for run_id, _ in runs] == [priority for _, priority in runs]


def test_snapshot_has_the_columns_of_the_record(instance: dg.DagsterInstance) -> None:
    run_id = new_run(instance)
    (record,) = instance.get_run_records()
    snapshot = to_run_snapshot(record)
    assert isinstance(record.dagster_run, DagsterRun)
    assert (snapshot.run_id, snapshot.task_name, snapshot.queued_at) == (run_id, "some_job", record.create_timestamp)


def test_progress_is_shown_for_started_runs_but_not_the_parents(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    cases = [(STATUS.STARTED, "3 of 10"), (STATUS.QUEUED, "10 of 10"), (STATUS.STARTED, "half"), (STATUS.STARTED, None)]
    runs = [new_run(instance, tags={} if tag is None else {PROGRESS_TAG: tag}) for _, tag in cases]
    for run_id, (status, _) in zip(runs, cases, strict=True):
        set_status(instance, run_id, status)
    _, cursor = mirror_runs(instance)
    assert [row(sessions, run_id).result for run_id in runs] == [
        {"progress": {"done": 3, "total": 10}},
        None,
        None,
        None,
    ]
    instance.add_run_tags(runs[0], {PROGRESS_TAG: "4 of 10"})
    mirror_runs(instance, cursor)
    assert row(sessions, runs[0]).result == {"progress": {"done": 4, "total": 10}}


def test_result_is_the_return_value_or_one_per_op(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    @dg.op
    def first() -> list[float]:
        return [1.0, math.nan]

    @dg.op
    def second(before: list[float]) -> str:
        return f"{len(before)} before"

    @dg.job(executor_def=in_process)
    def one_op() -> None:
        first()

    @dg.job(executor_def=in_process)
    def two_ops() -> None:
        second(first())

    one_op_run, two_ops_run = (
        dg.Definitions(jobs=[job], resources={"io_manager": in_memory_io_manager})
        .resolve_job_def(job.name)
        .execute_in_process(instance=instance)
        .run_id
        for job in (one_op, two_ops)
    )
    mirror_runs(instance)
    assert row(sessions, one_op_run).result == [1, "nan"]
    assert row(sessions, two_ops_run).result == {"first": [1, "nan"], "second": "2 before"}


@pytest.mark.parametrize("tags", [{}, {SEVERITY_TAG: "LOW"}, {SEVERITY_TAG: "quite bad"}])
def test_severity_of_a_failure_is_its_jobs_whatever_the_tags(
    instance: dg.DagsterInstance, tags: dict[str, str]
) -> None:
    for job, severity in (("report_generation", "CRITICAL"), ("__ASSET_JOB", "HIGH")):
        run_id = new_run(instance, job_name=job, tags=tags)
        record = instance.get_run_record_by_id(run_id)
        assert record is not None
        assert failure_to_record(record, RunEvents()).severity == severity


@pytest.mark.parametrize(
    ("error", "tags", "is_incident"),
    [
        (InputError("No batch has the number 0."), {}, False),
        (InputError("No batch has the number 0."), {"dagster/sensor_name": "huntington_batch_sensor"}, True),
        (SeedTrustError("Huntington can't be reached."), {}, True),
    ],
)
def test_input_error_of_a_person_opens_no_alert_and_others_are_quoted(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    error: SeedTrustError,
    tags: dict[str, str],
    is_incident: bool,
) -> None:
    @dg.op
    def launched() -> None:
        with user_facing_failures():
            raise error

    @dg.job(executor_def=in_process)
    def some_job() -> None:
        launched()

    ended = some_job.execute_in_process(instance=instance, raise_on_error=False, tags=tags)
    mirror_runs(instance)
    assert row(sessions, ended.run_id).error == str(error)
    watched = [WatchedJob("some_job", Severity.CRITICAL, 1)]
    with sessions() as session:
        found = error_spike(session, watched, window_seconds=900, window_limit=1)
    assert [finding.subject for finding in found] == (["job some_job", "all jobs"] if is_incident else [])
    if is_incident:
        assert str(error) in found[0].detail
        assert ended.run_id in found[0].detail
