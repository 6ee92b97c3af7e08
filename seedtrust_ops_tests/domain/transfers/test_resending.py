"""What may be sent again, under which key and with which body, and what is never sent again."""

from collections.abc import Callable

import pytest
from sqlalchemy import select

from seedtrust_ops.domain.transfers.attempts import idempotency_key
from seedtrust_ops.domain.transfers.batch_processor import AllTransfersFailed
from seedtrust_ops.domain.transfers.evidence import (
    State,
)
from seedtrust_ops.ports.bank import BankUnauthorized
from seedtrust_ops.tables import (
    TransferEvidence,
)
from seedtrust_ops_tests.domain.transfers.payment_stages import (
    CHANGES,
    accept,
    complete,
    dishonor,
    queue_again,
    refuse,
    reject,
    request_of,
    return_,
    send_without_answer,
    set_request,
    set_transaction,
    transaction_status,
)
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker
from seedtrust_ops_tests.support.factories import BuiltCase, Company


def test_transfer_that_draws_only_errors_is_sent_five_times(worker: Worker, company: Company) -> None:
    batch_id = company.batch([700])
    (transaction,) = company.transactions(batch_id)
    key = idempotency_key(transaction.id)
    worker.bank.control.inject_fault("error_before_commit", method="POST", idempotency_key=key, times=None, status=500)
    for _ in range(7):
        if company.batch_row(batch_id).status == "queued":
            worker.process(batch_id)
        worker.heal()

    assert worker.posts(transaction.id) == 5
    assert company.statuses(batch_id) == ["processing"]
    assert company.open_alerts() == [("transfer_undeliverable", f"transaction {transaction.id}")]

    # Whatever a person writes meanwhile, the bank's answer ends the alert.
    CHANGES["failed"](company, transaction.id)
    worker.bank.control.clear_faults()
    worker.bank.control.insert_transfer(reference=str(transaction.id), amount_cents=700, idempotency_key=key)
    worker.heal()
    assert company.statuses(batch_id) == ["completed"]
    assert company.open_alerts() == []


def test_conflict_in_progress_is_an_unknown_outcome(worker: Worker, company: Company) -> None:
    batch_id = company.batch([700])
    worker.bank.control.inject_fault("in_progress", method="POST")
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["processing"]
    assert company.open_alerts() == []


def test_refusal_counts_only_if_a_lookup_confirms_it(worker: Worker, company: Company) -> None:
    batch_id = company.batch([700])
    worker.bank.control.inject_fault("refuse", method="POST")
    worker.bank.control.inject_fault("error_before_commit", method="GET", path="/v1/transfers", times=None)
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["processing"]


def test_transfer_is_sent_again_as_it_was_first_sent(worker: Worker, company: Company) -> None:
    case = company.case()
    batch_id, transaction_id = send_without_answer(worker, company, case)
    worker.heal()
    set_transaction(company, transaction_id, payee_name="Somebody Else", method="wire")
    set_transaction(company, transaction_id, account_number_encrypted=company.cipher.encrypt("4999999999"))

    worker.process(batch_id)

    (transfer,) = worker.bank_transfers([transaction_id]).values()
    assert (transfer["method"], transfer["amount_cents"]) == ("ach", 5_000)


@pytest.mark.parametrize("changed", ["amount", "request"])
def test_transfer_that_was_changed_since_it_was_sent_is_not_sent_again(
    worker: Worker, company: Company, changed: str
) -> None:
    case = company.case()
    batch_id, transaction_id = send_without_answer(worker, company, case)
    worker.heal()
    if changed == "amount":
        set_transaction(company, transaction_id, amount_cents=6_000)
        set_request(company, transaction_id, amount_cents=6_000)
    else:
        set_transaction(company, transaction_id, disbursement_request_id=company.request(case, 5_000))
    with pytest.raises(
        AllTransfersFailed, match="was approved for 6000" if changed == "amount" else "was first sent for"
    ):
        worker.process(batch_id)
    assert worker.posts(transaction_id) == 1


@pytest.mark.parametrize(
    ("send", "lookup", "status", "state"),
    [
        (send_without_answer, None, "processing", State.IN_FLIGHT),
        (accept, None, "submitted", State.IN_FLIGHT),
        (accept, "lagging_lookup", "processing", State.IN_FLIGHT),
        (accept, "error_before_commit", "processing", State.IN_FLIGHT),
        (complete, None, "completed", State.MOVED),
        (complete, "error_before_commit", "processing", State.MOVED),
        (dishonor, None, "processing", State.CONTRADICTED),
    ],
)
def test_transfer_in_doubt_that_was_set_back_to_pending_is_not_sent(
    worker: Worker,
    company: Company,
    send: Callable[[Worker, Company, BuiltCase], tuple[int, int]],
    lookup: str | None,
    status: str,
    state: State,
) -> None:
    batch_id, transaction_id = send(worker, company, company.case())
    set_transaction(company, transaction_id, status="pending")
    set_request(company, transaction_id, status="approved")
    queue_again(company, batch_id)
    if lookup is not None:
        worker.bank.control.inject_fault(lookup, method="GET", path="/v1/transfers", times=None)

    worker.process(batch_id)

    assert worker.posts(transaction_id) == 1
    assert transaction_status(company, transaction_id) == status
    with company.sessions() as session:
        assert session.scalars(select(TransferEvidence.state)).one() == state


@pytest.mark.parametrize(("end", "word"), [(refuse, "refused"), (reject, "rejected"), (return_, "returned")])
def test_transfer_with_a_final_answer_that_was_set_back_is_not_sent(
    worker: Worker, company: Company, end: Callable[[Worker, Company, BuiltCase], tuple[int, int]], word: str
) -> None:
    case = company.case()
    batch_id, transaction_id = end(worker, company, case)
    set_transaction(company, transaction_id, status="pending")
    queue_again(company, batch_id)
    with pytest.raises(AllTransfersFailed, match=f"not sent: the bank has {word} it before"):
        worker.process(batch_id)
    assert worker.posts(transaction_id) == 1
    again = company.batch(case=case)
    company.transaction(again, request_of(company, transaction_id), 5_000)
    worker.process(again)
    assert company.statuses(again) == ["completed"]


def test_unsent_transfer_is_sent_under_the_same_key(worker: Worker, company: Company) -> None:
    batch_id = company.batch([700])
    worker.bank.control.inject_fault("unauthorized", method="POST")
    with pytest.raises(BankUnauthorized):
        worker.process(batch_id)
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["completed"]


def test_unanswered_transfer_set_to_submitted_is_sent_again_if_the_bank_lacks_it(
    worker: Worker, company: Company
) -> None:
    case = company.case()
    batch_id, transaction_id = send_without_answer(worker, company, case)
    set_transaction(company, transaction_id, status="submitted")
    _, other = send_without_answer(worker, company, case)
    worker.heal()
    # It says nothing of what the bank has had, so nothing is missing, and nothing else waits for it.
    assert company.open_alerts() == []
    assert transaction_status(company, other) == "pending"
    assert (company.batch_row(batch_id).status, company.statuses(batch_id)) == ("queued", ["pending"])
