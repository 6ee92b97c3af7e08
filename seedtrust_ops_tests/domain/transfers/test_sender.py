"""What may happen while a payment waits to be sent: it is checked again, its lease ends, or the bank sets a limit."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Update, update

from seedtrust_ops.domain.transfers import sending_context
from seedtrust_ops.domain.transfers.batch_lifecycle import AllTransfersFailed
from seedtrust_ops.domain.transfers.sender import MAX_PREPARED_AGE_SECONDS, BankNotResponding, BatchSender
from seedtrust_ops.tables import DisbursementRequest, HuntingtonTransaction
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.waiters import wait_until


def _execute_during_rate_limit_wait(monkeypatch: pytest.MonkeyPatch, company: Company, statement: Update) -> None:
    """Execute the statement while the worker waits for the rate limit."""
    original_wait = BatchSender._wait_for_rate_limit

    def execute() -> None:
        with company.sessions.begin() as session:
            session.execute(statement)

    async def execute_and_wait(sender: BatchSender) -> None:
        await asyncio.to_thread(execute)
        await original_wait(sender)

    monkeypatch.setattr(BatchSender, "_wait_for_rate_limit", execute_and_wait)


def test_request_denied_during_a_rate_limit_wait_is_not_paid(
    worker: Worker, company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = company.batch([1_000])
    (transaction,) = company.transactions(batch_id)
    worker.bank.control.inject_fault("rate_limited", method="POST")
    _execute_during_rate_limit_wait(monkeypatch, company, update(DisbursementRequest).values(status="denied"))

    with pytest.raises(AllTransfersFailed, match="was changed after preflight"):
        worker.process(batch_id)

    assert company.outcomes(transaction.id) == ["started", "rate_limited"]
    assert worker.bank_transfers([transaction.id]) == {}


def test_request_denied_while_the_bank_is_slow_is_not_paid(worker: Worker, company: Company) -> None:
    batch_id = company.big_batch(worker.options.concurrency + 4)
    ids = [transaction.id for transaction in company.transactions(batch_id)]
    worker.bank.control.inject_fault(
        "late_response_after_commit", method="POST", times=None, seconds=MAX_PREPARED_AGE_SECONDS + 1
    )

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(worker.process, batch_id)
        wait_until(lambda: len(worker.bank_transfers(ids)) == worker.options.concurrency, what="the first transfers")
        with company.sessions.begin() as session:
            session.execute(update(DisbursementRequest).values(status="denied"))
        sending.result()

    assert len(worker.bank_transfers(ids)) == worker.options.concurrency
    assert sum(transaction.failure_reason is not None for transaction in company.transactions(batch_id)) == 4


def test_payment_moved_to_another_batch_during_a_wait_is_not_sent_here(
    worker: Worker, company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id, held = company.batch([1_000]), company.batch(status="held")
    (transaction,) = company.transactions(batch_id)
    worker.bank.control.inject_fault("rate_limited", method="POST")
    _execute_during_rate_limit_wait(monkeypatch, company, update(HuntingtonTransaction).values(batch_id=held))

    with pytest.raises(AllTransfersFailed, match="no transactions"):
        worker.process(batch_id)

    assert company.statuses(held) == ["pending"]
    assert worker.bank_transfers([transaction.id]) == {}


@pytest.mark.parametrize("retry_after", ["999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_retry_after_is_capped_at_an_hour_and_opens_an_alert(
    worker: Worker, company: Company, retry_after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = company.batch([1_000])
    worker.bank.control.inject_fault("rate_limited", method="POST", retry_after=retry_after)
    waited = []

    async def stop_waiting(cancellation: sending_context.SendCancellation, seconds: float) -> None:
        waited.append(seconds)
        cancellation.cancel(BankNotResponding("the test has waited long enough"))

    monkeypatch.setattr(sending_context.SendCancellation, "wait", stop_waiting)
    with pytest.raises(BankNotResponding):
        worker.process(batch_id)

    assert 3_500 < waited[0] <= 3_600
    assert ("bank_rate_limiting", "huntington") in company.open_alerts()
    assert company.statuses(batch_id) == ["pending"]
    monkeypatch.undo()
    worker.process(batch_id)
    assert ("bank_rate_limiting", "huntington") not in company.open_alerts()


@pytest.mark.parametrize("clock", ["monotonic", "time"])
def test_lease_has_ended_if_either_clock_says_so(clock: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The monotonic clock stops while a machine is suspended, and the wall clock can be set back."""
    cancellation = sending_context.SendCancellation()
    cancellation.record_renewal(sending_context.read_clocks(), 60)
    assert not cancellation.lease_has_ended
    real = getattr(sending_context.time, clock)
    monkeypatch.setattr(sending_context.time, clock, lambda: real() + 61)
    assert cancellation.lease_has_ended
