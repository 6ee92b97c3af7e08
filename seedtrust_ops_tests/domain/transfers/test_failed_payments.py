"""Failed payments are drafted again for their requests, once, to an account that may still be good."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import IntegrityError

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.transfers.batch_lifecycle import AllTransfersFailed, queue_batch
from seedtrust_ops.domain.transfers.failed_payments import (
    UNUSABLE_ACCOUNT_CODES,
    FailedPaymentsReport,
    draft_failed_payments,
    preview_failed_payments,
)
from seedtrust_ops.tables import DisbursementRequest, HuntingtonTransaction
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker
from seedtrust_ops_tests.support.factories import BuiltCase, Company


def draft(company: Company) -> FailedPaymentsReport:
    return run_in_transaction(company.sessions, draft_failed_payments)


def preview(company: Company) -> FailedPaymentsReport:
    return run_in_transaction(company.sessions, preview_failed_payments)


def refuse(worker: Worker, company: Company, case: BuiltCase, cents: int = 5_000) -> tuple[int, int]:
    """Let the bank refuse a payment for lack of funds; return its request and transaction."""
    batch_id, request_id = company.batch(case=case), company.request(case, cents)
    transaction_id = company.transaction(batch_id, request_id, cents)
    worker.bank.control.inject_fault("refuse", code="insufficient_funds", reference=str(transaction_id))
    with pytest.raises(AllTransfersFailed):
        worker.process(batch_id)
    return request_id, transaction_id


def send_back(worker: Worker, company: Company, case: BuiltCase, code: str) -> tuple[int, int]:
    """Let an ACH be returned with `code`; return its request and transaction."""
    _, transaction_id = worker.submit_ach(case)
    worker.bank.control.return_reference(str(transaction_id), code)
    worker.heal()
    with company.sessions() as session:
        request_id = session.get_one(HuntingtonTransaction, transaction_id).disbursement_request_id
    assert request_id is not None
    return request_id, transaction_id


def test_failed_payment_is_drafted_and_paid_once_a_person_queues_it(worker: Worker, company: Company) -> None:
    case = company.case()
    request_id, transaction_id = refuse(worker, company, case)

    report = draft(company)

    assert report.batch_id is not None
    batch_id = report.batch_id
    assert (company.batch_row(batch_id).status, company.batch_row(batch_id).queued_at) == ("draft", None)
    (failed,), (drafted,) = company.transactions(1), company.transactions(batch_id)
    assert failed.id == transaction_id
    assert drafted.disbursement_request_id == request_id
    for name in ("method", "amount_cents", "payee_name", "routing_number", "account_number_last4", "account_type"):
        assert getattr(drafted, name) == getattr(failed, name)
    with company.sessions.begin() as session:
        queue_batch(session, batch_id)
    assert worker.process(batch_id).status == "completed"
    assert company.request_status(request_id) == "paid"
    assert preview(company).drafts == []


def test_preview_changes_nothing(worker: Worker, company: Company) -> None:
    request_id, transaction_id = refuse(worker, company, company.case())
    report = preview(company)
    assert report.batch_id is None
    assert [(one.payment.request_id, one.copied_transaction_id) for one in report.drafts] == [
        (request_id, transaction_id)
    ]
    assert [one.payment.reason for one in report.drafts] == ["insufficient_funds"]
    with company.sessions() as session:
        assert session.scalar(text("select count(*) from huntington_transactions")) == 1


def test_payment_that_is_already_drafted_is_left_out(worker: Worker, company: Company) -> None:
    refuse(worker, company, company.case())
    first = draft(company)
    again = draft(company)
    assert first.batch_id is not None
    assert (again.batch_id, again.drafts, again.left_out) == (None, [], [])


def test_two_runs_at_once_draft_each_payment_once(worker: Worker, company: Company) -> None:
    case = company.case()
    requests = [refuse(worker, company, case)[0] for _ in range(3)]
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: draft(company), range(4)))
    assert sorted(one.payment.request_id for report in reports for one in report.drafts) == requests


@pytest.mark.parametrize("code", [*UNUSABLE_ACCOUNT_CODES, "R01"])
def test_account_returned_as_unusable_is_not_used_again(worker: Worker, company: Company, code: str) -> None:
    request_id, transaction_id = send_back(worker, company, company.case(), code)
    report = draft(company)
    if code == "R01":
        assert [one.copied_transaction_id for one in report.drafts] == [transaction_id]
    else:
        assert report.batch_id is None
        assert [(one.request_id, why) for one, why in report.left_out] == [
            (request_id, "the payee's account was returned as unusable and has not changed")
        ]


def test_payment_follows_its_payee_to_a_newer_account(worker: Worker, company: Company) -> None:
    case = company.case()
    request_id, _ = send_back(worker, company, case, "R03")
    newer = company.transaction(company.batch(case=case, status="draft"), company.request(case, 700), 700)
    report = draft(company)
    assert [(one.payment.request_id, one.copied_transaction_id) for one in report.drafts] == [(request_id, newer)]
    assert report.batch_id is not None
    (drafted,) = company.transactions(report.batch_id)
    with company.sessions() as session:
        source = session.get_one(HuntingtonTransaction, newer)
    assert drafted.account_number_last4 == source.account_number_last4
    assert (drafted.method, drafted.amount_cents) == ("wire", 5_000)


def test_older_account_of_the_payee_is_not_a_changed_one(worker: Worker, company: Company) -> None:
    case = company.case()
    company.transaction(company.batch(case=case, status="draft"), company.request(case, 700), 700)
    send_back(worker, company, case, "R03")
    assert draft(company).drafts == []


def deny(company: Company, request_id: int, _transaction_id: int) -> None:
    with company.sessions.begin() as session:
        session.execute(update(DisbursementRequest).where(DisbursementRequest.id == request_id).values(status="denied"))


def leave_in_flight(company: Company, _request_id: int, transaction_id: int) -> None:
    with company.sessions.begin() as session:
        session.execute(
            text("update ops.transfer_evidence set state = 'contradicted' where transaction_id = :id"),
            {"id": transaction_id},
        )


def pay_otherwise(company: Company, request_id: int, _transaction_id: int) -> None:
    company.transaction(company.batch(status="processing"), request_id, 5_000, status="processing")
    newest = company.batch(status="failed")
    company.transaction(newest, request_id, 5_000, status="failed", failure_reason="invalid_account")


@pytest.mark.parametrize(
    ("change", "is_listed"),
    [(deny, False), (leave_in_flight, True), (pay_otherwise, True)],
    ids=["denied", "in flight", "being paid"],
)
def test_request_that_may_not_be_paid_again_is_left_out(
    worker: Worker, company: Company, change: Callable[[Company, int, int], None], is_listed: bool
) -> None:
    request_id, transaction_id = refuse(worker, company, company.case())
    change(company, request_id, transaction_id)
    report = draft(company)
    assert report.batch_id is None
    assert [one.request_id for one, _ in report.left_out] == ([request_id] if is_listed else [])
    assert all("has paid it or may still pay it" in why for _, why in report.left_out)


def test_database_drafts_no_payment_to_another_payee(worker: Worker, company: Company) -> None:
    request_id, _ = refuse(worker, company, company.case())
    other = company.case()
    copied = company.transaction(company.batch(case=other), company.request(other, 700), 700)
    with pytest.raises(IntegrityError, match="accounts of the same payee"), company.sessions.begin() as session:
        session.execute(
            text("select ops.draft_payments(array[:request]::bigint[], array[:copied]::bigint[])"),
            {"request": request_id, "copied": copied},
        )
