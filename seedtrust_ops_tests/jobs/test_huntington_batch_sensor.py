"""`huntington_batch_sensor` requests one run for every queued batch that has no run pending.

Runs and ticks are real: a Dagster instance on PostgreSQL, and the platform's batches.
"""

import re
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.test_utils import create_run_for_test
from sqlalchemy import func, update

from seedtrust_ops.domain.transfers.kill_switch import halt
from seedtrust_ops.jobs.process_huntington_batch import (
    CLAIM_TIMEOUT,
    NAME,
    huntington_batch_sensor,
)
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.orchestration.retry_pauses import FIRST_PAUSE, MAX_PAUSE
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.tables import FundingCheck, HuntingtonBatch
from seedtrust_ops_tests.jobs.job_runner import process
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company

SUCCEEDED, FAILED = DagsterEventType.PIPELINE_SUCCESS, DagsterEventType.PIPELINE_FAILURE
STARTED, CANCELED = DagsterEventType.PIPELINE_START, DagsterEventType.PIPELINE_CANCELED


def tick(instance: dg.DagsterInstance) -> list[dg.RunRequest] | str:
    """Return the run requests of one tick, or its skip reason."""
    context = dg.build_sensor_context(instance=instance, resources={"database": DatabaseResource()})
    result = huntington_batch_sensor(context)
    if isinstance(result, dg.SkipReason):
        return str(result.skip_message)
    assert isinstance(result, dg.SensorResult)
    if not result.run_requests:
        assert isinstance(result.skip_reason, dg.SkipReason | str)
        return str(getattr(result.skip_reason, "skip_message", result.skip_reason))
    return list(result.run_requests)


def only_request(requested: list[dg.RunRequest] | str) -> dg.RunRequest:
    assert not isinstance(requested, str), requested
    (request,) = requested
    return request


def launched(instance: dg.DagsterInstance, request: dg.RunRequest, *events: tuple[DagsterEventType, timedelta]) -> str:
    """Create the run that the daemon would launch for a request, with the given events and their ages."""
    run_id = create_run_for_test(
        instance, job_name=NAME, tags=dict(request.tags), run_config=dict(request.run_config)
    ).run_id
    for kind, ago in events:
        event = DagsterEvent(kind.value, NAME, message=kind.value)
        instance.run_storage.handle_run_event(run_id, event, update_timestamp=datetime.now(UTC) - ago)
    return run_id


def test_run_request_has_batch_id_tags_and_a_unique_key(instance: dg.DagsterInstance, company: Company) -> None:
    batch_id = company.batch([100])
    request = only_request(tick(instance))
    assert request.run_config["ops"] == {NAME: {"config": {"batch_id": batch_id}}}
    assert request.tags["seedtrust/batch_id"] == str(batch_id)
    assert request.tags["seedtrust/severity"] == "CRITICAL"
    assert request.tags["dagster/priority"] == "3000"
    assert str(batch_id) in str(request.run_key)
    assert only_request(tick(instance)).run_key == request.run_key


def test_tick_with_nothing_queued_says_so(instance: dg.DagsterInstance, company: Company) -> None:
    for status in ("draft", "held", "processing", "completed", "failed"):
        company.batch([100], status=status)
    assert tick(instance) == "No batch is queued."


def test_run_priority_follows_the_batch_within_its_severity(instance: dg.DagsterInstance, company: Company) -> None:
    priorities = [0, 5, -3, 10**6, -(10**6)]
    for priority in priorities:
        company.batch([100], priority=priority)
    requested = tick(instance)
    assert not isinstance(requested, str)
    given = [int(request.tags["dagster/priority"]) for request in requested]
    assert given == [3499, 3005, 3000, 2997, 2501]
    assert len({request.run_key for request in requested}) == len(priorities)


@pytest.mark.parametrize("event", [None, STARTED])
def test_batch_with_a_pending_run_is_not_requested_again(
    instance: dg.DagsterInstance, company: Company, event: DagsterEventType | None
) -> None:
    batch_id = company.batch([100])
    events = [(event, timedelta(0))] if event else []
    run_id = launched(instance, only_request(tick(instance)), *events)
    assert tick(instance) == f"Batch {batch_id}: run {run_id} is already pending."


def test_batch_that_waits_blocks_no_other(instance: dg.DagsterInstance, company: Company) -> None:
    company.batch([100])
    launched(instance, only_request(tick(instance)))
    other = company.batch([100])
    assert only_request(tick(instance)).tags["seedtrust/batch_id"] == str(other)


def test_run_that_never_claimed_its_batch_is_assumed_crashed(instance: dg.DagsterInstance, company: Company) -> None:
    company.batch([100])
    first = only_request(tick(instance))
    launched(instance, first, (STARTED, CLAIM_TIMEOUT + timedelta(seconds=1)))
    assert only_request(tick(instance)).run_key != first.run_key


@pytest.mark.parametrize("failures", [1, 2, 3, 8])
@pytest.mark.parametrize("ending", [FAILED, CANCELED])
def test_failed_runs_are_retried_after_a_growing_pause(
    instance: dg.DagsterInstance, company: Company, failures: int, ending: DagsterEventType
) -> None:
    batch_id = company.batch([100], queued_at=datetime.now(UTC) - timedelta(hours=1))
    first = only_request(tick(instance))
    pause = min(FIRST_PAUSE * 2 ** (failures - 1), MAX_PAUSE)
    for _ in range(failures - 1):
        launched(instance, first, (ending, timedelta(hours=1)))
    last = launched(instance, first, (ending, pause - FIRST_PAUSE / 2))
    skip_reason = tick(instance)
    assert isinstance(skip_reason, str)
    which = "the last run" if failures == 1 else f"the last {failures} runs"
    assert skip_reason.startswith(f"Batch {batch_id}: {which} did not succeed. The next run is at ")
    event = DagsterEvent(ending.value, NAME, message=ending.value)
    instance.run_storage.handle_run_event(last, event, datetime.now(UTC) - pause - timedelta(seconds=1))
    again = only_request(tick(instance))
    assert again.run_key != first.run_key
    assert again.tags == first.tags


def test_batch_requeued_by_a_person_is_requested_at_once(instance: dg.DagsterInstance, company: Company) -> None:
    batch_id = company.batch([100])
    first = only_request(tick(instance))
    launched(instance, first, (FAILED, timedelta(0)))
    assert isinstance(tick(instance), str)
    with company.sessions.begin() as session:
        session.execute(update(HuntingtonBatch).values(queued_at=datetime.now(UTC)))
    assert only_request(tick(instance)).run_key != first.run_key
    assert company.batch_row(batch_id).status == "queued"


def test_batch_requeued_after_processing_has_a_new_run_key(instance: dg.DagsterInstance, company: Company) -> None:
    batch_id = company.batch([100])
    first = only_request(tick(instance))
    launched(instance, first, (SUCCEEDED, timedelta(0)))
    assert process(batch_id).success
    assert tick(instance) == "No batch is queued."
    with company.sessions.begin() as session:
        session.execute(update(HuntingtonBatch).values(status="queued"))
    second = only_request(tick(instance))
    assert second.run_key != first.run_key
    assert second.tags["seedtrust/generation"] != first.tags["seedtrust/generation"]


def test_batch_that_waits_for_funds_is_requested_again_once_it_is_due(
    instance: dg.DagsterInstance, company: Company, bank: BankProcess
) -> None:
    batch_id = company.batch([100])
    first = only_request(tick(instance))
    bank.control.set_available_cents(99)
    launched(instance, first, (SUCCEEDED, timedelta(0)))
    assert process(batch_id).success
    skip_message = tick(instance)
    assert isinstance(skip_message, str)
    assert re.fullmatch(
        rf"Batch {batch_id} waits for funds in the funding account and is checked again at \d\d:\d\d:\d\d UTC\.",
        skip_message,
    )

    with company.sessions.begin() as session:
        session.execute(update(FundingCheck).values(not_before=func.now()))
    assert only_request(tick(instance)).run_key != first.run_key


def test_halted_transfers_tick_says_who_halted_them_and_why(instance: dg.DagsterInstance, company: Company) -> None:
    company.batch([100])
    company.batch([100])
    with company.sessions.begin() as session:
        halt(session, "reconciling with Huntington", "Maria")
    skip_message = tick(instance)
    assert isinstance(skip_message, str)
    assert "by Maria: reconciling with Huntington." in skip_message
    assert skip_message.endswith("Batches waiting in the queue: 2.")


def test_halt_by_environment_variable_is_reported(
    instance: dg.DagsterInstance, company: Company, set_variables: SetVariables
) -> None:
    company.batch([100])
    set_variables(SEEDTRUST_TRANSFERS_HALTED="1")
    skip_message = tick(instance)
    assert isinstance(skip_message, str)
    assert "SEEDTRUST_TRANSFERS_HALTED is set" in skip_message


def test_database_outage_is_reported_in_one_sentence(
    instance: dg.DagsterInstance, set_variables: SetVariables, closed_port: int
) -> None:
    set_variables(SEEDTRUST_DATABASE_URL=f"postgresql://ops:hunter2@127.0.0.1:{closed_port}/seedtrust")
    with pytest.raises(dg.Failure, match="SEEDTRUST_DATABASE_URL") as raised:
        tick(instance)
    assert "hunter2" not in str(raised.value)
