"""A bank that lost transfers or mixes up responses: an alert is opened, and nothing is paid twice."""

import secrets
from collections.abc import Iterator
from contextlib import suppress

import pytest
from sqlalchemy import update

from seedtrust_ops.domain.transfers.batch_lifecycle import AllTransfersFailed
from seedtrust_ops.ports.bank import BankInquiryFailed
from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops.tables import DisbursementRequest
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.tiers import Resource, provides


@pytest.fixture(scope="module")
@provides(Resource.PROCESS)
def bank_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BankProcess]:
    """A bank for this module only, because restoring a backup also loses the transfers of other tests."""
    directory = tmp_path_factory.mktemp("restored-bank")
    with start_bank(directory / "bank.sqlite", api_key=secrets.token_hex(16), available_cents=10**15) as bank:
        yield bank


def test_completed_transfer_lost_by_a_restored_bank_opens_an_alert(worker: Worker, company: Company) -> None:
    worker.process(company.batch([100]))
    worker.heal()
    worker.bank.control.back_up("an-hour-ago")
    batch_id = company.batch([5_000, 6_000])
    worker.process(batch_id)
    worker.bank.control.restore("an-hour-ago")

    worker.heal()

    assert company.open_alerts() == [
        ("transfer_forgotten_by_bank", f"transaction {transaction.id}")
        for transaction in company.transactions(batch_id)
    ]
    assert company.statuses(batch_id) == ["completed", "completed"]


def test_unknown_outcome_is_not_resent_to_a_bank_that_lost_transfers(worker: Worker, company: Company) -> None:
    worker.process(company.batch([100]))
    worker.heal()
    worker.bank.control.back_up("an-hour-ago")
    batch_id = company.batch([5_000, 6_000])
    paid, in_doubt = company.transactions(batch_id)
    worker.bank.control.inject_fault("reset_after_commit", method="POST", reference=str(in_doubt.id))
    worker.bank.control.inject_fault("error_before_commit", method="GET", path="/v1/transfers", times=3)
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["completed", "processing"]
    worker.bank.control.restore("an-hour-ago")

    worker.heal()

    assert company.statuses(batch_id) == ["completed", "processing"]
    assert worker.posts(in_doubt.id) == 1
    assert ("transfer_forgotten_by_bank", f"transaction {paid.id}") in company.open_alerts()


def test_lost_key_with_a_known_reference_is_not_resent(worker: Worker, company: Company) -> None:
    batch_id = company.batch([5_000])
    (transaction,) = company.transactions(batch_id)
    worker.bank.control.inject_fault("reset_after_commit", method="POST")
    worker.bank.control.inject_fault("error_before_commit", method="GET", path="/v1/transfers", times=3)
    worker.process(batch_id)
    worker.bank.control.forget_key(f"seedtrust-transaction-{transaction.id}")

    worker.heal()
    worker.heal()

    assert company.statuses(batch_id) == ["processing"]
    assert worker.posts(transaction.id) == 1
    assert ("transfer_ambiguous", f"transaction {transaction.id}") in company.open_alerts()


def test_look_up_response_for_another_request_causes_no_resend(worker: Worker, company: Company) -> None:
    batch_id = company.batch([5_000])
    worker.bank.control.inject_fault("reset_after_commit", method="POST")
    worker.bank.control.inject_fault("error_before_commit", method="GET", path="/v1/transfers", times=3)
    worker.process(batch_id)
    other = company.batch([7_000])
    worker.process(other)
    worker.bank.control.inject_fault("swapped_response", method="GET", path="/v1/transfers", times=None)

    with suppress(BankInquiryFailed):
        worker.heal()

    assert company.statuses(batch_id) != ["pending"]
    worker.bank.control.clear_faults()
    worker.heal()
    assert company.statuses(batch_id) == ["completed"]


def _lost_payment(worker: Worker, company: Company) -> tuple[int, int, int]:
    """Lose a payment on the way to the bank; return the request, its batch, and another batch that pays it."""
    case = company.case()
    request_id = company.request(case, 5_000)
    first, second = company.batch(case=case), company.batch(case=case)
    company.transaction(first, request_id, 5_000)
    company.transaction(second, request_id, 5_000)
    company.transaction(second, company.request(case, 100), 100)
    worker.bank.control.inject_fault("reset_before_commit", method="POST")
    worker.process(first)
    worker.heal(grace_seconds=0)
    assert company.statuses(first) == ["pending"]
    return request_id, first, second


def test_request_is_not_repaid_while_its_first_payment_may_arrive(worker: Worker, company: Company) -> None:
    _, first, second = _lost_payment(worker, company)

    worker.process(second)

    assert company.statuses(second) == ["failed", "completed"]
    assert "may already have paid" in (company.transactions(second)[0].failure_reason or "")
    worker.process(first)
    assert company.statuses(first) == ["completed"]


def test_request_is_not_repaid_on_the_day_its_lost_payment_failed_here(worker: Worker, company: Company) -> None:
    request_id, first, second = _lost_payment(worker, company)
    _set_status(company, request_id, "denied")
    with pytest.raises(AllTransfersFailed):
        worker.process(first)
    _set_status(company, request_id, "approved")

    worker.process(second)

    assert company.statuses(second) == ["failed", "completed"]
    assert "may already have paid" in (company.transactions(second)[0].failure_reason or "")


def _set_status(company: Company, request_id: int, status: str) -> None:
    with company.sessions.begin() as session:
        session.execute(update(DisbursementRequest).where(DisbursementRequest.id == request_id).values(status=status))


def test_second_transfer_alerts_even_while_ours_has_an_unknown_outcome(worker: Worker, company: Company) -> None:
    batch_id = company.batch([900])
    (transaction,) = company.transactions(batch_id)
    worker.bank.control.inject_fault("reset_after_commit", method="POST")
    worker.bank.control.inject_fault("error_before_commit", method="GET", path="/v1/transfers", times=3)
    worker.process(batch_id)
    worker.bank.control.insert_transfer(
        reference=str(transaction.id), amount_cents=900, idempotency_key=f"somebody-elses-{transaction.id}"
    )
    worker.heal()
    assert company.statuses(batch_id) == ["completed"]
    assert ("second_transfer", f"transaction {transaction.id}") in company.open_alerts()
