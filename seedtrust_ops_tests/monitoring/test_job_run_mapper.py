"""What Dagster knows of a run, in JobRun's words: one table of cases a column."""

import math
from typing import Any

import dagster as dg
from dagster._core.storage.dagster_run import DagsterRun
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.job_policies import SEVERITY_TAG
from seedtrust_ops.monitoring.job_run_mapper import fact_of, severity_of
from seedtrust_ops.orchestration.executor import in_process
from seedtrust_ops.orchestration.io_manager import returned_values
from seedtrust_ops.orchestration.metadata import PROGRESS_TAG
from seedtrust_ops_tests.monitoring.sample_runs import (
    EVENTS,
    STATUS,
    becomes,
    look,
    new_run,
    row,
)


def test_every_status_of_a_run_has_its_word(instance: dg.DagsterInstance, sessions: sessionmaker[Session]) -> None:
    wanted = {
        STATUS.NOT_STARTED: ("PENDING", None),
        STATUS.MANAGED: ("PENDING", None),
        STATUS.QUEUED: ("PENDING", None),
        STATUS.STARTING: ("PENDING", None),
        STATUS.STARTED: ("STARTED", None),
        STATUS.SUSPENDED: ("STARTED", None),
        STATUS.CANCELING: ("STARTED", None),
        STATUS.SUCCESS: ("COMPLETED", "COMPLETED"),
        STATUS.FAILURE: ("ERROR", "ERROR"),
        STATUS.CANCELED: ("REVOKED", "REVOKED"),
    }
    assert set(wanted) == set(STATUS)
    made_so = {STATUS.MANAGED, STATUS.SUSPENDED}
    runs = {status: new_run(instance, **({"status": status} if status in made_so else {})) for status in STATUS}
    for status in EVENTS:
        becomes(instance, runs[status], status)
    assert look(instance)[0] == len(runs)
    mirrored = {status: row(sessions, run_id) for status, run_id in runs.items()}
    assert {status: (one.status, one.resolution) for status, one in mirrored.items()} == wanted


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
        {"ops": {"a": {"config": {"x": 1}}, "b": {"config": {"y": 2}}}},
        {"ops": {"a": {"config": {"x": 1}}, "b": {"config": {"y": 2}}}},
    ),
    ({"resources": {"r": {"config": 1}}}, {"resources": {"r": {"config": 1}}}),
]


def test_arguments_are_the_config_of_the_one_op_and_odd_ones_stop_nothing(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    runs = [(new_run(instance, run_config=run_config), arguments) for run_config, arguments in ARGUMENTS]
    look(instance)
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


def test_priority_is_the_tag_s_and_an_odd_one_stops_nothing(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    runs = [
        (new_run(instance, tags={} if tag is None else {"dagster/priority": tag}), priority)
        for tag, priority in PRIORITIES
    ]
    look(instance)
    assert [row(sessions, run_id).priority for run_id, _ in runs] == [priority for _, priority in runs]


def test_a_fact_says_what_the_record_says(instance: dg.DagsterInstance) -> None:
    run_id = new_run(instance)
    (record,) = instance.get_run_records()
    fact = fact_of(record)
    assert isinstance(record.dagster_run, DagsterRun)
    assert (fact.run_id, fact.task_name, fact.queued_at) == (run_id, "some_job", record.create_timestamp)


def test_progress_is_shown_while_a_run_is_under_way_and_the_parent_s_is_not(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    shown = [(STATUS.STARTED, "3 of 10"), (STATUS.QUEUED, "10 of 10"), (STATUS.STARTED, "half"), (STATUS.STARTED, None)]
    runs = [new_run(instance, tags={} if tag is None else {PROGRESS_TAG: tag}) for _, tag in shown]
    for run_id, (status, _) in zip(runs, shown, strict=True):
        becomes(instance, run_id, status)
    _, cursor = look(instance)
    assert [row(sessions, run_id).result for run_id in runs] == [
        {"progress": {"done": 3, "total": 10}},
        None,
        None,
        None,
    ]
    instance.add_run_tags(runs[0], {PROGRESS_TAG: "4 of 10"})
    look(instance, cursor)
    assert row(sessions, runs[0]).result == {"progress": {"done": 4, "total": 10}}


def test_what_a_job_returned_is_its_result_and_of_several_ops_each_one_s(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    @dg.op
    def first() -> list[float]:
        return [1.0, math.nan]

    @dg.op
    def second(before: list[float]) -> str:
        return f"{len(before)} before"

    @dg.job(executor_def=in_process)
    def one() -> None:
        first()

    @dg.job(executor_def=in_process)
    def both() -> None:
        second(first())

    of_one, of_both = (
        dg.Definitions(jobs=[job], resources={"io_manager": returned_values})
        .resolve_job_def(job.name)
        .execute_in_process(instance=instance)
        .run_id
        for job in (one, both)
    )
    look(instance)
    assert row(sessions, of_one).result == [1, "nan"]
    assert row(sessions, of_both).result == {"first": [1, "nan"], "second": "2 before"}


def test_a_run_s_own_severity_counts_and_a_senseless_one_is_its_job_s(instance: dg.DagsterInstance) -> None:
    tags = [{SEVERITY_TAG: "LOW"}, {SEVERITY_TAG: "quite bad"}, {}]
    runs = [instance.get_run_by_id(new_run(instance, job_name="report_generation", tags=one)) for one in tags]
    assert [severity_of(run) for run in runs if run is not None] == ["LOW", "CRITICAL", "CRITICAL"]
