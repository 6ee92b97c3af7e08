"""What Dagster knows of a run, in JobRun's words: one table of cases a column."""

import math
from typing import Any

import dagster as dg
from dagster._core.storage.dagster_run import DagsterRun
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.monitoring.run_facts import fact_of
from seedtrust_ops_tests.monitoring.runs import (
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
