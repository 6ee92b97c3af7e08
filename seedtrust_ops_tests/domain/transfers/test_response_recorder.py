"""Every answer that the bank can give, or fail to give, over a real socket: what is believed, what is not done."""

from datetime import datetime

import pytest

from seedtrust_ops.domain.transfers.sender import BankNotResponding, BankUnreachable
from seedtrust_ops.ports.bank import BankUnauthorized
from seedtrust_ops.sandbox.bank.control_client import SeenRequest
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker, settings_for
from seedtrust_ops_tests.support.contradicting_bank import refusing_before
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.waiters import wait_until

IMPATIENT_SECONDS = 4.0
"""How long an answer is waited for that comes late on purpose; longer than a busy machine stands still."""
COMMITTED = [
    ("answer_late_after_commit", {"seconds": 20}),
    ("reset_after_commit", {}),
    ("error_after_commit", {"status": 500}),
    ("error_after_commit", {"status": 502}),
    ("error_after_commit", {"status": 503}),
    ("error_after_commit", {"status": 504}),
    ("garbage", {}),
    ("slow_drip", {"seconds": 0.5}),
]
NOT_COMMITTED = [("reset_before_commit", {}), ("error_before_commit", {"status": 500})]


def _one(worker: Worker, company: Company) -> tuple[int, int]:
    batch_id = company.batch([5_000])
    return batch_id, company.transactions(batch_id)[0].id


def _posts(worker: Worker, transaction_id: int) -> list[SeenRequest]:
    seen = worker.bank.control.requests()
    return [one for one in seen if one["method"] == "POST" and one["reference"] == str(transaction_id)]


def _meets(worker: Worker, kind: str, transaction_id: int, options: dict[str, float]) -> None:
    """Have the transfer's request meet a fault; where the answer is late, it is not waited for as long as that."""
    if "seconds" in options:
        worker.settings = settings_for(worker.bank, HUNTINGTON_TIMEOUT_SECONDS=IMPATIENT_SECONDS)
    worker.bank.control.order_fault(kind, method="POST", reference=str(transaction_id), **options)


@pytest.mark.parametrize(("kind", "options"), COMMITTED, ids=lambda value: str(value))
def test_transfer_that_the_bank_committed_without_a_readable_answer_is_found_by_its_key(
    worker: Worker, company: Company, kind: str, options: dict[str, float]
) -> None:
    batch_id, transaction_id = _one(worker, company)
    _meets(worker, kind, transaction_id, options)

    worker.process(batch_id)

    assert len(worker.bank.control.faults()["applied"]) == 1
    assert company.statuses(batch_id) == ["completed"]
    assert company.ledger(transaction_id) == [("disbursement", -5_000)]
    assert worker.posts(transaction_id) == 1


@pytest.mark.parametrize(("kind", "options"), COMMITTED, ids=lambda value: str(value))
def test_transfer_is_sent_once_when_neither_answer_nor_look_up_came_and_auto_heal_learns_the_truth(
    worker: Worker, company: Company, kind: str, options: dict[str, float]
) -> None:
    batch_id, transaction_id = _one(worker, company)
    _meets(worker, kind, transaction_id, options)
    worker.bank.control.order_fault("error_before_commit", method="GET", times=None)

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
def test_transfer_that_the_bank_never_committed_waits_out_the_grace_time_before_it_is_sent_again(
    worker: Worker, company: Company, kind: str, options: dict[str, float]
) -> None:
    batch_id, transaction_id = _one(worker, company)
    worker.bank.control.order_fault(kind, method="POST", reference=str(transaction_id), **options)

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


def test_request_that_the_bank_commits_long_after_we_gave_up_moves_money_once(worker: Worker, company: Company) -> None:
    batch_id, transaction_id = _one(worker, company)
    _meets(worker, "answer_late_before_commit", transaction_id, {"seconds": IMPATIENT_SECONDS + 2})

    worker.process(batch_id)
    worker.settings = settings_for(worker.bank)
    worker.heal(grace_seconds=0)
    worker.process(batch_id)
    wait_until(lambda: all(one["status"] for one in _posts(worker, transaction_id)), what="the late commit")

    assert company.statuses(batch_id) == ["completed"]
    assert worker.paid_more_than_once([transaction_id]) == []
    assert company.ledger(transaction_id) == [("disbursement", -5_000)]


@pytest.mark.parametrize("code", ["invalid_account", "invalid_amount", "insufficient_funds", "limit_exceeded"])
def test_refusal_is_final_and_bears_the_banks_code(worker: Worker, company: Company, code: str) -> None:
    case = company.case()
    batch_id = company.batch([1_000, 2_000], case=case)
    refused, _ = company.transactions(batch_id)
    worker.bank.control.order_fault("refuse", reference=str(refused.id), code=code)

    worker.process(batch_id)
    worker.heal()

    assert company.statuses(batch_id) == ["failed", "completed"]
    assert company.transactions(batch_id)[0].failure_reason == code
    assert worker.posts(refused.id) == 1
    assert company.request_status(refused.disbursement_request_id) == "approved"


def test_refusal_of_a_transfer_that_the_bank_has_made_is_not_believed(worker: Worker, company: Company) -> None:
    batch_id = company.batch([1_000])
    (transaction,) = company.transactions(batch_id)
    with refusing_before(worker.bank.url) as url:
        worker.settings = settings_for(worker.bank, HUNTINGTON_API_URL=url)
        worker.process(batch_id)

    assert company.statuses(batch_id) == ["completed"]
    assert company.ledger(transaction.id) == [("disbursement", -1_000)]


def test_429_is_waited_out_by_all_and_then_everything_goes_through(worker: Worker, company: Company) -> None:
    batch_id = company.big_batch(30)
    worker.bank.control.order_fault("rate_limited", times=10, method="POST", seconds=1)

    report = worker.process(batch_id)

    assert report.counts == {"completed": 30}
    limited = [one for one in company.transactions(batch_id) if "rate_limited" in company.outcomes(one.id)]
    assert limited
    for transaction in limited:
        ended, again = company.outcomes(transaction.id)[1:3]
        assert (ended, again) == ("rate_limited", "started")
        # By the bank's clock: when we note a 429 down has nothing to do with how long we wait.
        refused, *_, taken = (datetime.fromisoformat(one["at"]) for one in _posts(worker, transaction.id))
        assert (taken - refused).total_seconds() >= 1


def test_429_longer_than_the_lease_does_not_lose_the_batch(worker: Worker, company: Company) -> None:
    batch_id = company.batch([1_000])
    worker.bank.control.order_fault("rate_limited", method="POST", seconds=8)
    assert worker.process(batch_id, lease_seconds=6).status == "completed"


def test_401_stops_the_batch_leaves_the_rest_pending_and_opens_a_critical_alert(
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


def test_409_takes_what_the_bank_says_of_the_key_and_opens_a_critical_alert(worker: Worker, company: Company) -> None:
    batch_id, transaction_id = _one(worker, company)
    worker.bank.control.plant_transfer(
        reference=str(transaction_id), amount_cents=4_000, idempotency_key=f"seedtrust-transaction-{transaction_id}"
    )

    worker.process(batch_id)

    assert company.statuses(batch_id) == ["completed"]
    assert company.ledger(transaction_id) == [("disbursement", -4_000)]
    assert ("idempotency_key_reused", f"transaction {transaction_id}") in company.open_alerts()
    assert company.unbalanced_accounts() == []


def test_bank_that_is_not_there_takes_nothing_and_the_batch_is_queued_again(
    worker: Worker, company: Company, bank: BankProcess
) -> None:
    batch_id = company.batch([1_000, 2_000])
    worker.settings = settings_for(bank, HUNTINGTON_API_URL="http://127.0.0.1:9")

    with pytest.raises(BankUnreachable, match="can't be reached"):
        worker.process(batch_id)
    assert company.open_alerts() == [("bank_silent", "huntington")]

    assert company.statuses(batch_id) == ["pending", "pending"]
    assert company.batch_row(batch_id).status == "queued"


def test_bank_that_answers_nothing_at_all_is_not_sent_the_whole_batch(worker: Worker, company: Company) -> None:
    batch_id = company.big_batch(100)
    worker.bank.control.order_fault("error_before_commit", times=None, status=503)

    with pytest.raises(BankNotResponding, match="in a row nothing came"):
        worker.process(batch_id)

    assert company.statuses(batch_id).count("pending") >= 60
    assert company.batch_row(batch_id).status == "queued"
    worker.bank.control.clear_faults()
    worker.heal()
    assert worker.process(batch_id).counts == {"completed": 100}


def test_transfer_replayed_after_it_was_returned_is_recorded_as_the_bank_has_it_now(
    worker: Worker, company: Company
) -> None:
    case = company.case()
    batch_id = company.batch(case=case)
    transaction_id = company.transaction(batch_id, company.request(case, 100), 100, method="ach")
    worker.process(batch_id)
    worker.bank.control.return_reference(str(transaction_id), "R03")
    worker.heal()
    (transaction,) = company.transactions(batch_id)
    assert (transaction.status, transaction.failure_reason) == ("returned", "R03")


def test_bank_that_takes_no_request_but_answers_look_ups_is_told_and_not_sent_everything(
    worker: Worker, company: Company
) -> None:
    batch_id = company.big_batch(100)
    worker.bank.control.order_fault("error_before_commit", method="POST", times=None, status=503)

    with pytest.raises(BankNotResponding):
        worker.process(batch_id)

    assert ("bank_silent", "huntington") in company.open_alerts()
    assert company.statuses(batch_id).count("pending") >= 60
    worker.bank.control.clear_faults()
    worker.heal()
    worker.process(batch_id)
    assert company.open_alerts() == []


def test_wrong_key_met_in_a_look_up_is_told(worker: Worker, company: Company) -> None:
    batch_id = company.batch([1_000])
    worker.bank.control.order_fault("error_before_commit", method="POST", times=None)
    worker.bank.control.order_fault("unauthorized", method="GET", times=None)
    with pytest.raises(BankUnauthorized):
        worker.process(batch_id)
    assert ("bank_unauthorized", "huntington") in company.open_alerts()
