"""A batch from the queue to its end, on a bank that behaves."""

import pytest

from seedtrust_ops_tests.building import Company
from seedtrust_ops_tests.domain.transfers.working import Worker


def test_wire_is_sent_booked_and_its_request_paid(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=100_000)
    batch_id = company.batch([30_000], case=case)

    report = worker.process(batch_id)

    (transaction,) = company.transactions(batch_id)
    assert report.status == company.batch_row(batch_id).status == "completed"
    assert company.batch_row(batch_id).finished_at is not None
    assert transaction.status == "completed"
    assert transaction.completed_at is not None
    assert transaction.bank_transfer_id == worker.bank_transfers([transaction.id])[transaction.id]["id"]
    assert company.ledger(transaction.id) == [("disbursement", -30_000)]
    assert company.balance_cents(case.account_id) == 70_000
    assert company.request_status(transaction.disbursement_request_id) == "paid"
    assert company.outcomes(transaction.id) == ["started", "completed"]
