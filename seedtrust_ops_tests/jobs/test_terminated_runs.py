"""Terminate means stop: how a run of `process_huntington_batch` ended decides whether its batch is held or goes on.

Runs, events and ticks are real: a Dagster instance on PostgreSQL, the sandbox bank, and Dagster's run monitoring.
"""

import logging
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.execution.api import execute_run_iterator
from dagster._daemon.monitoring.run_monitoring import check_run_timeout
from dagster._utils.interrupts import capture_interrupts
from sqlalchemy import func, update
from sqlalchemy.exc import OperationalError

from seedtrust_ops.definitions import defs
from seedtrust_ops.domain.transfers.leases import acquire_lease
from seedtrust_ops.jobs.auto_heal_huntington_batches import NAME as HEAL
from seedtrust_ops.jobs.process_huntington_batch import NAME
from seedtrust_ops.orchestration.queue_expiration import mark_expired
from seedtrust_ops.orchestration.run_cancellation import (
    RunHistoryUnreadable,
    canceled_by_person_at,
    was_canceled_by_person,
)
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.tables import BatchLease, HuntingtonBatch
from seedtrust_ops.tag_names import BATCH_TAG
from seedtrust_ops_tests.jobs.job_runner import run
from seedtrust_ops_tests.jobs.test_huntington_batch_sensor import only_request, tick
from seedtrust_ops_tests.monitoring import sample_runs
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.waiters import wait_until

pytestmark = pytest.mark.usefixtures("bank_environment", "no_retry_delays")

End = Callable[[dg.DagsterInstance, dg.DagsterRun], None]


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def terminate(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """As a launcher does whose worker is on another host, so that no interruption arrives."""
    instance.report_run_canceling(run)


def terminate_by_force(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_run_canceled(run, "This pipeline was forcibly marked as canceled.")


def cancel_in_queue(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.run_coordinator.cancel_run(run.run_id)


def exceed_max_runtime(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Let Dagster's run monitoring end the run: it records its reason, and the launcher records a cancellation too."""
    instance.add_run_tags(run.run_id, {"dagster/max_runtime": "0.001"})
    if run.status is dg.DagsterRunStatus.QUEUED:
        instance.report_dagster_event(DagsterEvent(DagsterEventType.RUN_START.value, NAME), run.run_id)
        time.sleep(0.01)
    record = instance.get_run_record_by_id(run.run_id)
    assert record is not None
    check_run_timeout(instance, record, logging.getLogger(), 0)


def expire(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    mark_expired(instance, run)
    instance.report_run_canceling(run, message="Expired: waited in the queue longer than this job's limit.")
    instance.report_run_canceled(run)


def crash(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_run_failed(run, "The run's worker crashed.")


def end_and_interrupt(end: End) -> End:
    def end_run(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
        end(instance, run)
        interrupt()

    return end_run


def shut_down(_instance: dg.DagsterInstance, _run: dg.DagsterRun) -> None:
    interrupt()


def queued_run(instance: dg.DagsterInstance, batch_id: int, *, tagged: bool = True) -> dg.DagsterRun:
    run_id = sample_runs.queued_run(
        instance,
        job_name=NAME,
        run_config={"ops": {NAME: {"config": {"batch_id": batch_id}}}},
        tags={BATCH_TAG: str(batch_id)} if tagged else {},
    )
    queued = instance.get_run_by_id(run_id)
    assert queued is not None
    return queued


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (terminate, "held"),
        (end_and_interrupt(terminate), "held"),
        (terminate_by_force, "held"),
        (end_and_interrupt(exceed_max_runtime), "queued"),
        # Nobody canceled it, so Dagster retries its op at once.
        (shut_down, "completed"),
    ],
    ids=["terminated elsewhere", "terminated", "by force", "max_runtime", "shutdown"],
)
def test_batch_is_held_only_if_a_person_ends_the_run_that_sends_it(
    instance: dg.DagsterInstance, company: Company, bank: BankProcess, end: End, status: str
) -> None:
    batch_id = company.big_batch(200)
    bank.control.inject_fault("late_response_after_commit", method="POST", times=None, seconds=0.3)
    job = defs.resolve_job_def(NAME)
    sending = instance.create_run_for_job(job, run_config={"ops": {NAME: {"config": {"batch_id": batch_id}}}})

    def end_while_sending() -> None:
        wait_until(lambda: "completed" in company.statuses(batch_id), what="a first transfer", seconds=30)
        end(instance, sending)

    with ThreadPoolExecutor(1) as pool, capture_interrupts():
        ending = pool.submit(end_while_sending)
        list(execute_run_iterator(InMemoryJob(job), sending, instance))
        ending.result()
    bank.control.clear_faults()
    run(HEAL, instance=instance)
    assert company.batch_row(batch_id).status == status
    assert ("pending" in company.statuses(batch_id)) == (status != "completed")


ENDS_OF_QUEUED_RUNS = [
    pytest.param(cancel_in_queue, True, id="canceled in the queue"),
    pytest.param(terminate, True, id="canceled while starting"),
    pytest.param(terminate_by_force, True, id="by force"),
    pytest.param(exceed_max_runtime, False, id="max_runtime"),
    pytest.param(expire, False, id="expired"),
    pytest.param(crash, False, id="crashed"),
]


@pytest.mark.parametrize("tagged", [True, False], ids=["launched by the sensor", "launched by hand"])
@pytest.mark.parametrize(("end", "is_held"), ENDS_OF_QUEUED_RUNS)
def test_queued_batch_is_held_only_if_a_person_cancels_a_run_for_it(
    instance: dg.DagsterInstance, company: Company, end: End, is_held: bool, tagged: bool
) -> None:
    batch_id, other = company.batch([100]), company.batch([100])
    end(instance, queued_run(instance, batch_id, tagged=tagged))
    requested = tick(instance)
    assert company.batch_row(batch_id).status == ("held" if is_held else "queued")
    if is_held:
        assert only_request(requested).tags[BATCH_TAG] == str(other)
        with company.sessions.begin() as session:
            session.execute(update(HuntingtonBatch).where(HuntingtonBatch.id == other).values(status="draft"))
        assert tick(instance) == "No batch is queued."


@pytest.mark.parametrize(("end", "is_held"), ENDS_OF_QUEUED_RUNS)
def test_healing_asks_how_the_run_ended_that_left_a_batch(
    instance: dg.DagsterInstance, company: Company, end: End, is_held: bool
) -> None:
    batch_id = company.batch([100])
    sending = queued_run(instance, batch_id)
    with company.sessions.begin() as session:
        acquire_lease(session, batch_id, sending.run_id, 60)
        session.execute(update(BatchLease).values(expires_at=func.now() - timedelta(seconds=1)))
        session.execute(update(HuntingtonBatch).values(status="processing"))
    end(instance, sending)
    assert run(HEAL, instance=instance).success
    assert company.batch_row(batch_id).status == ("held" if is_held else "queued")


def test_cancellations_from_before_a_batch_was_queued_do_not_count(
    instance: dg.DagsterInstance, company: Company
) -> None:
    batch_id = company.batch([100])
    cancel_in_queue(instance, queued_run(instance, batch_id))
    with company.sessions.begin() as session:
        session.execute(update(HuntingtonBatch).values(queued_at=func.clock_timestamp()))
    assert only_request(tick(instance)).tags[BATCH_TAG] == str(batch_id)


def test_held_batches_are_named_by_the_tick_that_holds_them(instance: dg.DagsterInstance, company: Company) -> None:
    batch_id = company.batch([100])
    cancel_in_queue(instance, queued_run(instance, batch_id))
    assert tick(instance) == f"Batch {batch_id} is held, because a person canceled its run."


def test_run_that_dagster_does_not_know_was_canceled_by_nobody(instance: dg.DagsterInstance) -> None:
    assert not was_canceled_by_person(instance, "00000000-0000-4000-8000-000000000000")


def test_person_counts_even_if_max_runtime_is_exceeded_later(instance: dg.DagsterInstance) -> None:
    queued = queued_run(instance, 7)
    before = datetime.now(UTC)
    terminate(instance, queued)
    exceed_max_runtime(instance, queued)
    canceled_at = canceled_by_person_at(instance, queued.run_id)
    assert canceled_at is not None
    assert before - timedelta(seconds=1) < canceled_at <= datetime.now(UTC)


def test_unreadable_history_is_no_answer(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    queued = queued_run(instance, 7)

    def fail(*_arguments: object, **_options: object) -> None:
        raise OperationalError("select 1", {}, Exception("connection refused"))

    monkeypatch.setattr(type(instance), "get_records_for_run", fail)
    with pytest.raises(RunHistoryUnreadable, match=r"is not sent before that is known\.$"):
        was_canceled_by_person(instance, queued.run_id)
