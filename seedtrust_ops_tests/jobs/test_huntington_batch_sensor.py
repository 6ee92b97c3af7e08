"""`huntington_batch_sensor` asks for one run of every batch that is queued and has none on its way.

Runs and ticks are real: Dagster's instance on PostgreSQL, and the platform's batches.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.test_utils import create_run_for_test
from sqlalchemy import update

from seedtrust_ops.domain.transfers.kill_switch import halt
from seedtrust_ops.jobs.process_huntington_batch import (
    CLAIM_WITHIN,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    NAME,
    huntington_batch_sensor,
)
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.tables import HuntingtonBatch
from seedtrust_ops_tests.jobs.job_runner import process
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.job_environment import Change

SUCCEEDED, FAILED = DagsterEventType.PIPELINE_SUCCESS, DagsterEventType.PIPELINE_FAILURE
STARTED, CANCELED = DagsterEventType.PIPELINE_START, DagsterEventType.PIPELINE_CANCELED


def tick(instance: dg.DagsterInstance) -> list[dg.RunRequest] | str:
    """What one tick asks for, or why it asks for nothing."""
    context = dg.build_sensor_context(instance=instance, resources={"database": DatabaseResource()})
    result = huntington_batch_sensor(context)
    if isinstance(result, dg.SkipReason):
        return str(result.skip_message)
    assert isinstance(result, dg.SensorResult)
    if not result.run_requests:
        assert isinstance(result.skip_reason, dg.SkipReason | str)
        return str(getattr(result.skip_reason, "skip_message", result.skip_reason))
    return list(result.run_requests)


def only(requested: list[dg.RunRequest] | str) -> dg.RunRequest:
    assert not isinstance(requested, str), requested
    (request,) = requested
    return request


def launched(instance: dg.DagsterInstance, request: dg.RunRequest, *events: tuple[DagsterEventType, timedelta]) -> str:
    """The run that the daemon makes of a request, with what happened to it and how long ago."""
    run_id = create_run_for_test(
        instance, job_name=NAME, tags=dict(request.tags), run_config=dict(request.run_config)
    ).run_id
    for kind, ago in events:
        event = DagsterEvent(kind.value, NAME, message=kind.value)
        instance.run_storage.handle_run_event(run_id, event, update_timestamp=datetime.now(UTC) - ago)
    return run_id


def test_a_queued_batch_is_asked_for_with_its_number_its_tags_and_a_key_of_its_own(
    instance: dg.DagsterInstance, company: Company
) -> None:
    batch_id = company.batch([100])
    request = only(tick(instance))
    assert request.run_config["ops"] == {NAME: {"config": {"batch_id": batch_id}}}
    assert request.tags["seedtrust/batch_id"] == str(batch_id)
    assert request.tags["seedtrust/severity"] == "CRITICAL"
    assert request.tags["dagster/priority"] == "3000"
    assert str(batch_id) in str(request.run_key)
    assert only(tick(instance)).run_key == request.run_key


def test_with_nothing_queued_the_tick_says_so(instance: dg.DagsterInstance, company: Company) -> None:
    for status in ("draft", "held", "processing", "completed", "failed"):
        company.batch([100], status=status)
    assert tick(instance) == "No batch is queued."


def test_runs_are_in_the_order_of_their_batches_priority_and_never_leave_their_severity(
    instance: dg.DagsterInstance, company: Company
) -> None:
    priorities = [0, 5, -3, 10**6, -(10**6)]
    for priority in priorities:
        company.batch([100], priority=priority)
    requested = tick(instance)
    assert not isinstance(requested, str)
    given = [int(request.tags["dagster/priority"]) for request in requested]
    assert given == [3499, 3005, 3000, 2997, 2501]
    assert len({request.run_key for request in requested}) == len(priorities)


@pytest.mark.parametrize("event", [None, STARTED])
def test_a_batch_whose_run_is_on_its_way_is_not_asked_for_again(
    instance: dg.DagsterInstance, company: Company, event: DagsterEventType | None
) -> None:
    batch_id = company.batch([100])
    events = [(event, timedelta(0))] if event else []
    run_id = launched(instance, only(tick(instance)), *events)
    assert tick(instance) == f"Batch {batch_id}: run {run_id} is on its way."


def test_a_batch_that_waits_holds_up_no_other(instance: dg.DagsterInstance, company: Company) -> None:
    company.batch([100])
    launched(instance, only(tick(instance)))
    other = company.batch([100])
    assert only(tick(instance)).tags["seedtrust/batch_id"] == str(other)


def test_a_run_that_started_long_ago_and_never_claimed_its_batch_is_taken_for_dead(
    instance: dg.DagsterInstance, company: Company
) -> None:
    company.batch([100])
    first = only(tick(instance))
    launched(instance, first, (STARTED, CLAIM_WITHIN + timedelta(seconds=1)))
    assert only(tick(instance)).run_key != first.run_key


@pytest.mark.parametrize("failures", [1, 2, 3, 8])
@pytest.mark.parametrize("ending", [FAILED, CANCELED])
def test_after_a_failed_run_there_is_a_pause_that_grows_and_then_a_new_try(
    instance: dg.DagsterInstance, company: Company, failures: int, ending: DagsterEventType
) -> None:
    batch_id = company.batch([100], queued_at=datetime.now(UTC) - timedelta(hours=1))
    first = only(tick(instance))
    pause = min(FIRST_PAUSE * 2 ** (failures - 1), LONGEST_PAUSE)
    for _ in range(failures - 1):
        launched(instance, first, (ending, timedelta(hours=1)))
    last = launched(instance, first, (ending, pause - FIRST_PAUSE / 2))
    waits = tick(instance)
    assert isinstance(waits, str)
    assert waits.startswith(f"Batch {batch_id}: {failures} runs in a row failed; the next is at ")
    event = DagsterEvent(ending.value, NAME, message=ending.value)
    instance.run_storage.handle_run_event(last, event, datetime.now(UTC) - pause - timedelta(seconds=1))
    again = only(tick(instance))
    assert again.run_key != first.run_key
    assert again.tags == first.tags


def test_a_batch_that_a_person_queues_again_after_failures_is_asked_for_at_once(
    instance: dg.DagsterInstance, company: Company
) -> None:
    batch_id = company.batch([100])
    first = only(tick(instance))
    launched(instance, first, (FAILED, timedelta(0)))
    assert isinstance(tick(instance), str)
    with company.sessions.begin() as session:
        session.execute(update(HuntingtonBatch).values(queued_at=datetime.now(UTC)))
    assert only(tick(instance)).run_key != first.run_key
    assert company.batch_row(batch_id).status == "queued"


def test_a_batch_that_was_processed_and_queued_again_has_a_new_key(
    instance: dg.DagsterInstance, company: Company
) -> None:
    batch_id = company.batch([100])
    first = only(tick(instance))
    launched(instance, first, (SUCCEEDED, timedelta(0)))
    assert process(batch_id).success
    assert tick(instance) == "No batch is queued."
    with company.sessions.begin() as session:
        session.execute(update(HuntingtonBatch).values(status="queued"))
    second = only(tick(instance))
    assert second.run_key != first.run_key
    assert second.tags["seedtrust/generation"] != first.tags["seedtrust/generation"]


def test_while_transfers_are_halted_the_tick_says_who_halted_them_and_why(
    instance: dg.DagsterInstance, company: Company
) -> None:
    company.batch([100])
    company.batch([100])
    with company.sessions.begin() as session:
        halt(session, "reconciling with Huntington", "Maria")
    said = tick(instance)
    assert isinstance(said, str)
    assert "by Maria: reconciling with Huntington." in said
    assert said.endswith("2 batches wait in the queue.")


def test_a_halt_by_the_environment_is_told_too(instance: dg.DagsterInstance, company: Company, change: Change) -> None:
    company.batch([100])
    change(SEEDTRUST_TRANSFERS_HALTED="1")
    said = tick(instance)
    assert isinstance(said, str)
    assert "SEEDTRUST_TRANSFERS_HALTED is set" in said


def test_a_database_that_is_down_is_told_in_a_sentence(
    instance: dg.DagsterInstance, change: Change, closed_port: int
) -> None:
    change(SEEDTRUST_DATABASE_URL=f"postgresql://ops:hunter2@127.0.0.1:{closed_port}/seedtrust")
    with pytest.raises(dg.Failure, match="SEEDTRUST_DATABASE_URL") as raised:
        tick(instance)
    assert "hunter2" not in str(raised.value)
