"""A bank that forgot, or that answers with somebody else's words: people are told, and nothing is paid twice."""

import secrets
from collections.abc import Iterator
from contextlib import suppress

import pytest
from sqlalchemy import update

from seedtrust_ops.domain.transfers import send_cancellation, sender
from seedtrust_ops.domain.transfers.batch_lifecycle import AllTransfersFailed
from seedtrust_ops.ports.bank import BankInquiryFailed
from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops.tables import DisbursementRequest
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker
from seedtrust_ops_tests.support.factories import Company


@pytest.fixture(scope="module")
def bank_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BankProcess]:
    """A bank of this file's own: one that is put back to a backup forgets other tests' transfers too."""
    directory = tmp_path_factory.mktemp("forgetful-bank")
    with start_bank(directory / "bank.sqlite", api_key=secrets.token_hex(16), available_cents=10**15) as bank:
        yield bank


def test_completed_transfer_that_a_restored_bank_knows_nothing_of_is_told(worker: Worker, company: Company) -> None:
    worker.process(company.batch([100]))
    worker.heal()
    worker.bank.control.back_up("an-hour-ago")
    batch_id = company.batch([5_000, 6_000])
    worker.process(batch_id)
    worker.bank.control.restore("an-hour-ago")

    worker.heal()

    assert company.open_alerts() == [
        ("transfer_forgotten_by_bank", f"transaction {one.id}") for one in company.transactions(batch_id)
    ]
    assert company.statuses(batch_id) == ["completed", "completed"]


def test_payment_in_doubt_is_not_sent_again_to_a_bank_that_has_forgotten_others(
    worker: Worker, company: Company
) -> None:
    worker.process(company.batch([100]))
    worker.heal()
    worker.bank.control.back_up("an-hour-ago")
    batch_id = company.batch([5_000, 6_000])
    paid, in_doubt = company.transactions(batch_id)
    worker.bank.control.order_fault("reset_after_commit", method="POST", reference=str(in_doubt.id))
    worker.bank.control.order_fault("error_before_commit", method="GET", times=3)
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["completed", "processing"]
    worker.bank.control.restore("an-hour-ago")

    worker.heal()

    assert company.statuses(batch_id) == ["completed", "processing"]
    assert worker.posts(in_doubt.id) == 1
    assert ("transfer_forgotten_by_bank", f"transaction {paid.id}") in company.open_alerts()


def test_payment_whose_key_the_bank_forgot_is_not_sent_again_where_its_reference_is_known(
    worker: Worker, company: Company
) -> None:
    batch_id = company.batch([5_000])
    (transaction,) = company.transactions(batch_id)
    worker.bank.control.order_fault("reset_after_commit", method="POST")
    worker.bank.control.order_fault("error_before_commit", method="GET", times=3)
    worker.process(batch_id)
    worker.bank.control.forget(f"seedtrust-transaction-{transaction.id}")

    worker.heal()
    worker.heal()

    assert company.statuses(batch_id) == ["processing"]
    assert worker.posts(transaction.id) == 1
    assert ("transfer_ambiguous", f"transaction {transaction.id}") in company.open_alerts()


def test_look_up_that_is_answered_for_another_sends_nothing_again(worker: Worker, company: Company) -> None:
    batch_id = company.batch([5_000])
    worker.bank.control.order_fault("reset_after_commit", method="POST")
    worker.bank.control.order_fault("error_before_commit", method="GET", times=3)
    worker.process(batch_id)
    other = company.batch([7_000])
    worker.process(other)
    worker.bank.control.order_fault("answer_of_another", method="GET", times=None)

    with suppress(BankInquiryFailed):
        worker.heal()

    assert company.statuses(batch_id) != ["pending"]
    worker.bank.control.clear_faults()
    worker.heal()
    assert company.statuses(batch_id) == ["completed"]


def _lost_payment(worker: Worker, company: Company) -> tuple[int, int, int]:
    """A request whose payment left and is unknown to the bank; its batch, and another batch that pays it and more."""
    case = company.case()
    request_id = company.request(case, 5_000)
    first, second = company.batch(case=case), company.batch(case=case)
    company.transaction(first, request_id, 5_000)
    company.transaction(second, request_id, 5_000)
    company.transaction(second, company.request(case, 100), 100)
    worker.bank.control.order_fault("reset_before_commit", method="POST")
    worker.process(first)
    worker.heal(grace_seconds=0)
    assert company.statuses(first) == ["pending"]
    return request_id, first, second


def test_request_is_not_paid_by_another_while_its_first_payment_may_still_arrive(
    worker: Worker, company: Company
) -> None:
    _, first, second = _lost_payment(worker, company)

    worker.process(second)

    assert company.statuses(second) == ["failed", "completed"]
    assert "may have paid" in (company.transactions(second)[0].failure_reason or "")
    worker.process(first)
    assert company.statuses(first) == ["completed"]


def test_request_is_not_paid_by_another_on_the_day_on_which_its_first_payment_was_lost_and_then_failed_here(
    worker: Worker, company: Company
) -> None:
    request_id, first, second = _lost_payment(worker, company)
    _set_status(company, request_id, "denied")
    with pytest.raises(AllTransfersFailed):
        worker.process(first)
    _set_status(company, request_id, "approved")

    worker.process(second)

    assert company.statuses(second) == ["failed", "completed"]
    assert "may have paid" in (company.transactions(second)[0].failure_reason or "")


def _set_status(company: Company, request_id: int, status: str) -> None:
    with company.sessions.begin() as session:
        session.execute(update(DisbursementRequest).where(DisbursementRequest.id == request_id).values(status=status))


def test_second_transfer_is_told_also_where_it_was_seen_while_ours_was_still_in_doubt(
    worker: Worker, company: Company
) -> None:
    batch_id = company.batch([900])
    (transaction,) = company.transactions(batch_id)
    worker.bank.control.order_fault("reset_after_commit", method="POST")
    worker.bank.control.order_fault("error_before_commit", method="GET", times=3)
    worker.process(batch_id)
    worker.bank.control.plant_transfer(
        reference=str(transaction.id), amount_cents=900, idempotency_key=f"somebody-elses-{transaction.id}"
    )
    worker.heal()
    assert company.statuses(batch_id) == ["completed"]
    assert ("second_transfer", f"transaction {transaction.id}") in company.open_alerts()


@pytest.mark.parametrize("retry_after", ["999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_bank_that_asks_to_wait_absurdly_long_is_told_and_waited_for_an_hour_at_the_most(
    worker: Worker, company: Company, retry_after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = company.batch([1_000])
    worker.bank.control.order_fault("rate_limited", method="POST", retry_after=retry_after)
    waited = []

    async def stop_waiting(sign: send_cancellation.SendCancellation, seconds: float) -> None:
        waited.append(seconds)
        sign.raise_sign(sender.BankNotResponding("the test has waited long enough"))

    monkeypatch.setattr(send_cancellation.SendCancellation, "wait", stop_waiting)
    with pytest.raises(sender.BankNotResponding):
        worker.process(batch_id)

    assert 3_500 < waited[0] <= 3_600
    assert ("bank_rate_limiting", "huntington") in company.open_alerts()
    assert company.statuses(batch_id) == ["pending"]
    monkeypatch.undo()
    worker.process(batch_id)
    assert ("bank_rate_limiting", "huntington") not in company.open_alerts()


@pytest.mark.parametrize("clock", ["monotonic", "time"])
def test_lease_has_ended_when_either_clock_says_so(clock: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one stands still while a machine is suspended, the other can be set back."""
    sign = send_cancellation.SendCancellation()
    sign.lease_renewed(send_cancellation.moment(), 60)
    assert not sign.lease_has_ended
    real = getattr(send_cancellation.time, clock)
    monkeypatch.setattr(send_cancellation.time, clock, lambda: real() + 61)
    assert sign.lease_has_ended
