"""Every response that the bank can give or fail to give, over a real socket: what is recorded and what is resent."""

from datetime import datetime

import pytest

from seedtrust_ops.domain.transfers import funding
from seedtrust_ops.domain.transfers.sender import BankNotResponding
from seedtrust_ops.ports.bank import BankUnauthorized
from seedtrust_ops.sandbox.bank.control_client import LoggedRequest
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker, settings_for
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.refusing_proxy import refusing_proxy
from seedtrust_ops_tests.support.waiters import wait_until

SHORT_TIMEOUT_SECONDS = 4.0
"""The timeout for responses that are late on purpose; longer than a busy machine stalls."""
COMMITTED = [
    ("late_response_after_commit", {"seconds": 20}),
    ("reset_after_commit", {}),
    ("error_after_commit", {"status": 500}),
    ("error_after_commit", {"status": 502}),
    ("error_after_commit", {"status": 503}),
    ("error_after_commit", {"status": 504}),
    ("garbage", {}),
    ("slow_drip", {"seconds": 0.5}),
]
NOT_COMMITTED = [("reset_before_commit", {}), ("error_before_commit", {"status": 500})]


def _single_transfer_batch(worker: Worker, company: Company) -> tuple[int, int]:
    batch_id = company.batch([5_000])
    return batch_id, company.transactions(batch_id)[0].id


def _posts(worker: Worker, transaction_id: int) -> list[LoggedRequest]:
    seen = worker.bank.control.requests()
    return [request for request in seen if request["method"] == "POST" and request["reference"] == str(transaction_id)]


def _inject_fault(worker: Worker, kind: str, transaction_id: int, options: dict[str, float]) -> None:
    """Inject a fault into the transfer's request; a late response is later than the timeout."""
    if "seconds" in options:
        worker.settings = settings_for(worker.bank, HUNTINGTON_TIMEOUT_SECONDS=SHORT_TIMEOUT_SECONDS)
    worker.bank.control.inject_fault(kind, method="POST", reference=str(transaction_id), **options)


@pytest.mark.parametrize(("kind", "options"), COMMITTED, ids=lambda value: str(value))
def test_committed_transfer_without_a_response_is_found_by_its_key(
    worker: Worker, company: Company, kind: str, options: dict[str, float]
) -> None:
    batch_id, transaction_id = _single_transfer_batch(worker, company)
    _inject_fault(worker, kind, transaction_id, options)

    worker.process(batch_id)

    assert len(worker.bank.control.faults()["applied"]) == 1
    assert company.statuses(batch_id) == ["completed"]
    assert company.ledger(transaction_id) == [("disbursement", -5_000)]
    assert worker.posts(transaction_id) == 1


@pytest.mark.parametrize(("kind", "options"), COMMITTED, ids=lambda value: str(value))
def test_unknown_outcome_is_sent_once_and_resolved_by_auto_heal(
    worker: Worker, company: Company, kind: str, options: dict[str, float]
) -> None:
    batch_id, transaction_id = _single_transfer_batch(worker, company)
    _inject_fault(worker, kind, transaction_id, options)
    worker.bank.control.inject_fault("error_before_commit", method="GET", path="/v1/transfers", times=None)

    report = worker.process(batch_id)

    assert report.still_open == 1
    assert company.statuses(batch_id) == ["processing"]
    assert company.outcomes(transaction_id) == ["started", "unknown"]
    worker.bank.control.clear_faults()
    worker.heal()
    assert company.statuses(batch_id) == ["completed"]
    assert company.batch_row(batch_id).status == "completed"
    assert worker.posts(transaction_id) == 1


@pytest.mark.parametrize(("kind", "options"), NOT_COMMITTED, ids=lambda value: str(value))
def test_uncommitted_transfer_is_resent_only_after_the_grace_period(
    worker: Worker, company: Company, kind: str, options: dict[str, float]
) -> None:
    batch_id, transaction_id = _single_transfer_batch(worker, company)
    worker.bank.control.inject_fault(kind, method="POST", reference=str(transaction_id), **options)

    worker.process(batch_id)
    assert company.statuses(batch_id) == ["processing"]
    worker.heal(grace_seconds=600)
    assert company.statuses(batch_id) == ["processing"]
    assert worker.posts(transaction_id) == 1

    worker.heal(grace_seconds=0)
    assert company.statuses(batch_id) == ["pending"]
    assert company.batch_row(batch_id).status == "queued"
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["completed"]
    assert len(worker.bank_transfers([transaction_id])) == 1
    assert company.outcomes(transaction_id) == ["started", "unknown", "unknown_to_bank", "started", "completed"]


def test_request_committed_long_after_our_timeout_moves_money_once(worker: Worker, company: Company) -> None:
    batch_id, transaction_id = _single_transfer_batch(worker, company)
    _inject_fault(worker, "late_response_before_commit", transaction_id, {"seconds": SHORT_TIMEOUT_SECONDS + 2})

    worker.process(batch_id)
    worker.settings = settings_for(worker.bank)
    worker.heal(grace_seconds=0)
    worker.process(batch_id)
    wait_until(lambda: all(request["status"] for request in _posts(worker, transaction_id)), what="the late commit")

    assert company.statuses(batch_id) == ["completed"]
    assert worker.paid_more_than_once([transaction_id]) == []
    assert company.ledger(transaction_id) == [("disbursement", -5_000)]


@pytest.mark.parametrize("code", ["invalid_account", "invalid_amount", "insufficient_funds", "limit_exceeded"])
def test_refusal_is_final_and_has_the_banks_code(worker: Worker, company: Company, code: str) -> None:
    case = company.case()
    batch_id = company.batch([1_000, 2_000], case=case)
    refused, _ = company.transactions(batch_id)
    worker.bank.control.inject_fault("refuse", reference=str(refused.id), code=code)

    worker.process(batch_id)
    worker.heal()

    assert company.statuses(batch_id) == ["failed", "completed"]
    assert company.transactions(batch_id)[0].failure_reason == code
    assert worker.posts(refused.id) == 1
    assert company.request_status(refused.disbursement_request_id) == "approved"


def test_refusal_of_a_transfer_that_the_bank_has_is_ignored(worker: Worker, company: Company) -> None:
    batch_id = company.batch([1_000])
    (transaction,) = company.transactions(batch_id)
    with refusing_proxy(worker.bank.url) as url:
        worker.settings = settings_for(worker.bank, HUNTINGTON_API_URL=url)
        worker.process(batch_id)

    assert company.statuses(batch_id) == ["completed"]
    assert company.ledger(transaction.id) == [("disbursement", -1_000)]


def test_rate_limit_429_pauses_all_workers_and_then_everything_is_sent(worker: Worker, company: Company) -> None:
    batch_id = company.big_batch(30)
    worker.bank.control.inject_fault("rate_limited", times=10, method="POST", seconds=1)

    report = worker.process(batch_id)

    assert report.counts == {"completed": 30}
    limited = [
        sent_transaction
        for sent_transaction in company.transactions(batch_id)
        if "rate_limited" in company.outcomes(sent_transaction.id)
    ]
    assert limited
    for transaction in limited:
        first, second = company.outcomes(transaction.id)[1:3]
        assert (first, second) == ("rate_limited", "started")
        # By the bank's clock, because the time at which we record a 429 says nothing about how long we waited.
        limited_at, *_, accepted_at = (
            datetime.fromisoformat(request["at"]) for request in _posts(worker, transaction.id)
        )
        assert (accepted_at - limited_at).total_seconds() >= 1


def test_rate_limit_429_longer_than_the_lease_keeps_the_batch(worker: Worker, company: Company) -> None:
    batch_id = company.batch([1_000])
    worker.bank.control.inject_fault("rate_limited", method="POST", seconds=8)
    assert worker.process(batch_id, lease_seconds=6).status == "completed"


def test_unauthorized_401_stops_the_batch_and_opens_a_critical_alert(
    worker: Worker, company: Company, bank: BankProcess
) -> None:
    batch_id = company.big_batch(40)
    worker.settings = settings_for(bank, HUNTINGTON_API_KEY="wrong")

    with pytest.raises(BankUnauthorized, match="HUNTINGTON_API_KEY"):
        worker.process(batch_id)

    assert set(company.statuses(batch_id)) == {"pending"}
    assert company.batch_row(batch_id).status == "queued"
    assert ("bank_unauthorized", "huntington") in company.open_alerts()

    worker.settings = settings_for(bank)
    assert worker.process(batch_id).counts == {"completed": 40}
    assert company.open_alerts() == []


def test_conflict_409_records_the_banks_transfer_and_opens_an_alert(worker: Worker, company: Company) -> None:
    batch_id, transaction_id = _single_transfer_batch(worker, company)
    worker.bank.control.insert_transfer(
        reference=str(transaction_id), amount_cents=4_000, idempotency_key=f"seedtrust-transaction-{transaction_id}"
    )

    worker.process(batch_id)

    assert company.statuses(batch_id) == ["completed"]
    assert company.ledger(transaction_id) == [("disbursement", -4_000)]
    assert ("idempotency_key_reused", f"transaction {transaction_id}") in company.open_alerts()
    assert company.unbalanced_accounts() == []


def test_unreachable_bank_gets_nothing_and_the_batch_waits(
    worker: Worker, company: Company, bank: BankProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = company.batch([1_000, 2_000])
    worker.settings = settings_for(bank, HUNTINGTON_API_URL="http://127.0.0.1:9")

    monkeypatch.setattr(funding, "MAX_RECHECK_SECONDS", -1.0)

    report = worker.process(batch_id)
    assert report.awaits is not None
    assert "gave no readable response" in report.awaits.describe()
    assert company.open_alerts() == [("bank_silent", "huntington")]

    assert company.statuses(batch_id) == ["pending", "pending"]
    assert company.batch_row(batch_id).status == "queued"


def test_bank_without_any_response_is_not_sent_the_whole_batch(worker: Worker, company: Company) -> None:
    batch_id = company.big_batch(100)
    worker.bank.control.inject_fault("error_before_commit", path="/v1/transfers", times=None, status=503)

    with pytest.raises(BankNotResponding, match="requests to Huntington got no response"):
        worker.process(batch_id)

    assert company.statuses(batch_id).count("pending") >= 60
    assert company.batch_row(batch_id).status == "queued"
    worker.bank.control.clear_faults()
    worker.heal()
    assert worker.process(batch_id).counts == {"completed": 100}


def test_transfer_returned_before_a_look_up_is_recorded_as_returned(worker: Worker, company: Company) -> None:
    case = company.case()
    batch_id = company.batch(case=case)
    transaction_id = company.transaction(batch_id, company.request(case, 100), 100, method="ach")
    worker.process(batch_id)
    worker.bank.control.return_reference(str(transaction_id), "R03")
    worker.heal()
    (transaction,) = company.transactions(batch_id)
    assert (transaction.status, transaction.failure_reason) == ("returned", "R03")


def test_bank_that_only_responds_to_look_ups_is_not_sent_the_whole_batch(worker: Worker, company: Company) -> None:
    batch_id = company.big_batch(100)
    worker.bank.control.inject_fault("error_before_commit", method="POST", times=None, status=503)

    with pytest.raises(BankNotResponding):
        worker.process(batch_id)

    assert ("bank_silent", "huntington") in company.open_alerts()
    assert company.statuses(batch_id).count("pending") >= 60
    worker.bank.control.clear_faults()
    worker.heal()
    worker.process(batch_id)
    assert company.open_alerts() == []


def test_unauthorized_look_up_opens_an_alert(worker: Worker, company: Company) -> None:
    batch_id = company.batch([1_000])
    worker.bank.control.inject_fault("error_before_commit", method="POST", times=None)
    worker.bank.control.inject_fault("unauthorized", method="GET", path="/v1/transfers", times=None)
    with pytest.raises(BankUnauthorized):
        worker.process(batch_id)
    assert ("bank_unauthorized", "huntington") in company.open_alerts()
