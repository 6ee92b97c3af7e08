"""A batch whose run a person canceled is held and sends nothing more until a person releases it; a crash requeues."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import func, update

from seedtrust_ops.domain.transfers.batch_lifecycle import (
    BatchNotHeld,
    BatchNotQueueable,
    BatchNotQueued,
    UnknownBatch,
    release_batch,
)
from seedtrust_ops.domain.transfers.batch_processor import RunCanceled
from seedtrust_ops.domain.transfers.leases import acquire_lease
from seedtrust_ops.errors import TransientError
from seedtrust_ops.ports.bank import BankUnauthorized
from seedtrust_ops.tables import BatchLease, HuntingtonBatch, HuntingtonTransaction
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.waiters import wait_until


class DagsterDown(TransientError):
    """It is not known who canceled what."""


def cannot_tell(_run_id: str) -> bool:
    raise DagsterDown("Dagster's database is down.")


def abandon(company: Company, batch_id: int, holder: str = "run-1") -> None:
    """Leave the batch as a worker does that was killed after its claim, longer ago than its lease."""
    with company.sessions.begin() as session:
        acquire_lease(session, batch_id, holder, 60)
        session.execute(update(BatchLease).values(expires_at=func.clock_timestamp() - timedelta(seconds=1)))
        session.execute(update(HuntingtonBatch).where(HuntingtonBatch.id == batch_id).values(status="processing"))


def set_statuses(company: Company, batch_id: int, status: str) -> None:
    with company.sessions.begin() as session:
        session.execute(
            update(HuntingtonTransaction).where(HuntingtonTransaction.batch_id == batch_id).values(status=status)
        )


def posts(company: Company, worker: Worker, batch_id: int) -> int:
    return sum(worker.posts(transaction.id) for transaction in company.transactions(batch_id))


def test_run_canceled_while_sending_stops_and_holds_the_batch(worker: Worker, company: Company) -> None:
    batch_id = company.big_batch(100)
    worker.bank.control.inject_fault("late_response_after_commit", method="POST", times=None, seconds=0.3)

    def cancel() -> None:
        wait_until(lambda: "completed" in company.statuses(batch_id), what="a first transfer")
        worker.canceled_runs.add(worker.name)

    with ThreadPoolExecutor(1) as pool:
        canceling = pool.submit(cancel)
        with pytest.raises(RunCanceled):
            worker.process(batch_id)
        canceling.result()
    sent = company.statuses(batch_id).count("completed")
    assert set(company.statuses(batch_id)) == {"completed", "pending"}
    worker.bank.control.clear_faults()

    worker.heal()
    batch = company.batch_row(batch_id)
    assert (batch.status, batch.finished_at, posts(company, worker, batch_id)) == ("held", None, sent)
    assert f"seedtrust-ops transfers release {batch_id}" in str(batch.error)
    with pytest.raises(BatchNotQueued, match="'held'"):
        replace(worker, name="run-2").process(batch_id)

    with company.sessions.begin() as session:
        assert release_batch(session, batch_id).transactions == 100 - sent
    replace(worker, name="run-2").process(batch_id)
    assert company.statuses(batch_id) == ["completed"] * 100
    assert posts(company, worker, batch_id) == 100


@pytest.mark.parametrize(
    ("canceled", "transactions", "healed"),
    [
        (False, "pending", "queued"),
        (True, "pending", "held"),
        (True, "processing", "held"),
        (True, "completed", "completed"),
    ],
)
def test_healing_holds_what_a_person_canceled_and_requeues_what_crashed(
    worker: Worker, company: Company, canceled: bool, transactions: str, healed: str
) -> None:
    batch_id = company.batch([100, 200])
    abandon(company, batch_id)
    set_statuses(company, batch_id, transactions)
    worker.canceled_runs |= {"run-1"} if canceled else set()
    report = worker.heal(grace_seconds=600)
    assert company.batch_row(batch_id).status == healed
    assert report.abandoned == ([] if canceled else [batch_id])


def test_healing_requeues_nothing_before_it_knows_who_canceled(worker: Worker, company: Company) -> None:
    batch_id = company.batch([100])
    abandon(company, batch_id)
    with pytest.raises(DagsterDown):
        replace(worker, was_canceled_by_person=cannot_tell).heal()
    assert company.batch_row(batch_id).status == "processing"
    worker.canceled_runs.add("run-1")
    worker.heal()
    assert company.batch_row(batch_id).status == "held"


def test_worker_that_cannot_tell_who_canceled_leaves_its_batch_to_healing(worker: Worker, company: Company) -> None:
    batch_id = company.batch([100])
    wrong_key = worker.settings.model_copy(update={"api_key": SecretStr("wrong")})
    with pytest.raises(BankUnauthorized) as raised:
        replace(worker, was_canceled_by_person=cannot_tell, settings=wrong_key).process(batch_id)
    assert "auto-heal will then return the batch" in " ".join(raised.value.__notes__)
    assert company.batch_row(batch_id).status == "processing"


@pytest.mark.parametrize("status", ["processing", "completed"])
def test_transactions_to_send_again_are_held_with_a_canceled_batch(
    worker: Worker, company: Company, status: str
) -> None:
    batch_id = company.batch([100], status=status)
    with company.sessions.begin() as session:
        session.add(BatchLease(batch_id=batch_id, holder="run-1", generation=1, expires_at=func.now()))
    set_statuses(company, batch_id, "processing")
    worker.canceled_runs.add("run-1")
    report = worker.heal()
    assert (company.statuses(batch_id), report.inquiry.requeued_batches) == (["pending"], [])
    assert company.batch_row(batch_id).status == "held"


@pytest.mark.parametrize("canceled", [False, True])
def test_second_run_takes_over_only_what_no_person_canceled(worker: Worker, company: Company, canceled: bool) -> None:
    batch_id = company.batch([100])
    abandon(company, batch_id)
    worker.canceled_runs |= {"run-1"} if canceled else set()
    second = replace(worker, name="run-2")
    if canceled:
        with pytest.raises(BatchNotQueued, match="A person canceled run run-1"):
            second.process(batch_id)
    else:
        second.process(batch_id)
    assert company.statuses(batch_id) == ["pending" if canceled else "completed"]


@pytest.mark.parametrize(
    ("transactions", "healed"),
    [
        (["completed", "failed"], "completed_with_errors"),
        (["submitted"], "completed"),
        (["completed", "pending"], "held"),
        ([], "held"),
    ],
    ids=str,
)
def test_held_batch_with_nothing_open_finishes(
    worker: Worker, company: Company, transactions: list[str], healed: str
) -> None:
    case = company.case()
    batch_id = company.batch(case=case, status="held")
    for status in transactions:
        company.transaction(batch_id, company.request(case, 100), 100, status=status)
    worker.heal(grace_seconds=600)
    batch = company.batch_row(batch_id)
    assert (batch.status, batch.finished_at is None) == (healed, healed == "held")


@pytest.mark.parametrize("status", ["draft", "queued", "processing", "completed", "completed_with_errors", "failed"])
def test_only_a_held_batch_is_released(company: Company, status: str) -> None:
    batch_id = company.batch([100], status=status)
    with company.sessions.begin() as session, pytest.raises(BatchNotHeld, match=f"'{status}'"):
        release_batch(session, batch_id)
    assert company.batch_row(batch_id).status == status


def test_batch_with_nothing_to_send_is_not_released(company: Company) -> None:
    batch_id = company.batch(status="held")
    with company.sessions.begin() as session, pytest.raises(BatchNotQueueable, match="nothing to send"):
        release_batch(session, batch_id)
    with company.sessions.begin() as session, pytest.raises(UnknownBatch):
        release_batch(session, batch_id + 1)


@pytest.mark.parametrize("status", ["completed", "completed_with_errors", "failed"])
def test_finished_batch_with_a_pending_transaction_is_held(worker: Worker, company: Company, status: str) -> None:
    batch_id = company.batch([100], status=status, finished_at=datetime.now(UTC))
    worker.heal()
    batch = company.batch_row(batch_id)
    assert (batch.status, batch.finished_at, company.statuses(batch_id)) == ("held", None, ["pending"])
    assert f"seedtrust-ops transfers release {batch_id}" in str(batch.error)
    with company.sessions.begin() as session:
        release_batch(session, batch_id)
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["completed"]


def test_finished_batch_that_a_worker_has_is_not_held(worker: Worker, company: Company) -> None:
    batch_id = company.batch([100], status="completed")
    with company.sessions.begin() as session:
        acquire_lease(session, batch_id, "run-of-another", 60)
    worker.heal()
    assert company.batch_row(batch_id).status == "completed"
