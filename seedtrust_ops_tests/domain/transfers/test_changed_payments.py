"""What people change in requests and transactions while the money moves: the books follow the bank."""

from datetime import UTC, datetime
from functools import partial

import pytest
from sqlalchemy import delete, select, update

from seedtrust_ops.domain.approvals.by_date import approve_due
from seedtrust_ops.domain.approvals.by_rule import approve_by_rules
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.transfers.attempts import idempotency_key
from seedtrust_ops.domain.transfers.bank_feed import OVERLAP
from seedtrust_ops.domain.transfers.settlement_deadlines import settles_on
from seedtrust_ops.formatting import format_short_date
from seedtrust_ops.tables import (
    Account,
    Alert,
    ApprovalRule,
    BankFeedCursor,
    LedgerEntry,
)
from seedtrust_ops_tests.domain.transfers.payment_stages import (
    CHANGES,
    complete,
    delete_transaction,
    deny,
    evidence_of,
    pay_again,
    request_of,
    send_without_answer,
    set_request,
    set_transaction,
    transaction_status,
    unknown_transfer,
)
from seedtrust_ops_tests.domain.transfers.transfer_worker import LONG_AGO, Worker
from seedtrust_ops_tests.support.factories import Company


@pytest.mark.parametrize("status", ["denied", "cancelled", "pending"])
def test_return_restores_the_status_that_a_person_gave(worker: Worker, company: Company, status: str) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    request_id = request_of(company, transaction_id)
    set_request(company, transaction_id, status=status)
    worker.bank.control.settle()
    worker.heal()
    assert company.request_status(request_id) == "paid"
    assert ("paid_without_approval", f"request {request_id}") in company.open_alerts()

    worker.bank.control.return_reference(str(transaction_id), "R03")
    worker.heal()

    assert company.request_status(request_id) == status
    assert company.ledger(transaction_id) == [("disbursement", -5_000), ("reversal", 5_000)]


def test_return_restores_an_approval(worker: Worker, company: Company) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    worker.bank.control.settle()
    worker.heal()
    worker.bank.control.return_reference(str(transaction_id), "R03")
    worker.heal()
    assert company.request_status(request_of(company, transaction_id)) == "approved"
    assert company.open_alerts() == []


@pytest.mark.parametrize("hand_set_status", [None, "failed"])
def test_request_with_a_return_is_never_approved_automatically(
    worker: Worker, company: Company, hand_set_status: str | None
) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    worker.bank.control.return_reference(str(transaction_id), "R03")
    worker.heal()
    if hand_set_status is not None:
        set_transaction(company, transaction_id, status=hand_set_status)
    set_request(company, transaction_id, status="pending", auto_authorize_at=LONG_AGO)
    with company.sessions.begin() as session:
        session.add(ApprovalRule(name="everything", max_amount_cents=10_000_000, keep_minimum_balance=False))

    run_in_transaction(company.sessions, approve_due)
    run_in_transaction(company.sessions, partial(approve_by_rules, zone=UTC))

    assert company.request_status(request_of(company, transaction_id)) == "pending"


def test_request_denied_while_in_flight_opens_an_alert(worker: Worker, company: Company) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    deny(company, transaction_id)
    worker.heal()
    worker.heal()
    assert company.open_alerts() == [("paid_without_approval", f"request {request_of(company, transaction_id)}")]
    accepted_at = evidence_of(company, transaction_id).bank_created_at
    assert accepted_at is not None
    with company.sessions() as session:
        alert = session.scalars(select(Alert)).one()
    assert f" is being paid (by {format_short_date(settles_on('ach', accepted_at))}) although" in alert.detail
    assert alert.occurrences == 1


@pytest.mark.parametrize("change", ["failed", "pending", "returned"])
def test_status_set_by_hand_is_corrected_from_the_bank(worker: Worker, company: Company, change: str) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    CHANGES[change](company, transaction_id)

    worker.heal()
    statuses = [transaction_status(company, transaction_id)]
    worker.bank.control.settle()
    worker.heal()

    assert [*statuses, transaction_status(company, transaction_id)] == ["submitted", "completed"]
    assert company.ledger(transaction_id) == [("disbursement", -5_000)]


@pytest.mark.parametrize("denied", [False, True])
def test_status_that_a_person_wrote_before_the_bank_said_so_is_booked(
    worker: Worker, company: Company, denied: bool
) -> None:
    case = company.case(balance_cents=9_000)
    _, transaction_id = worker.submit_ach(case)
    set_transaction(company, transaction_id, status="completed")
    if denied:
        deny(company, transaction_id)
    worker.bank.control.settle()
    worker.heal()
    assert company.ledger(transaction_id) == [("disbursement", -5_000)]
    assert company.balance_cents(case.account_id) == 4_000
    assert company.request_status(request_of(company, transaction_id)) == "paid"


@pytest.mark.parametrize("status", ["failed", "returned"])
def test_status_written_over_a_completed_transfer_is_corrected_any_time_later(
    worker: Worker, company: Company, status: str
) -> None:
    _, transaction_id = complete(worker, company, company.case())
    set_transaction(company, transaction_id, status=status)
    with company.sessions.begin() as session:
        session.execute(update(BankFeedCursor).values(read_up_to=datetime.now(UTC) + OVERLAP))
    worker.heal()
    assert transaction_status(company, transaction_id) == "completed"
    assert worker.heal().inquiry.looked_up == 0


def test_deleted_transaction_that_settles_opens_an_alert(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=9_000)
    _, transaction_id = worker.submit_ach(case)
    request_id = request_of(company, transaction_id)
    delete_transaction(company, transaction_id)
    worker.bank.control.settle()
    worker.heal()
    assert unknown_transfer(worker, transaction_id) in company.open_alerts()
    assert "may already have paid" in pay_again(worker, company, case, request_id)


def test_reassigned_transaction_is_booked_to_the_request_it_was_sent_for(worker: Worker, company: Company) -> None:
    case, other = company.case(balance_cents=9_000), company.case(balance_cents=9_000)
    _, transaction_id = worker.submit_ach(case)
    request_id = request_of(company, transaction_id)
    other_request = company.request(other, 5_000)
    set_transaction(company, transaction_id, disbursement_request_id=other_request)
    worker.bank.control.settle()
    worker.heal()
    assert (company.request_status(request_id), company.request_status(other_request)) == ("paid", "approved")
    assert (company.balance_cents(case.account_id), company.balance_cents(other.account_id)) == (4_000, 9_000)


def test_amount_changed_to_the_banks_is_booked_with_an_alert(worker: Worker, company: Company) -> None:
    _, transaction_id = send_without_answer(worker, company, company.case())
    set_transaction(company, transaction_id, amount_cents=6_000)
    worker.bank.control.insert_transfer(
        reference=str(transaction_id), amount_cents=6_000, idempotency_key=idempotency_key(transaction_id)
    )
    worker.heal()
    assert company.ledger(transaction_id) == [("disbursement", -6_000)]
    assert ("amount_differs", f"transaction {transaction_id}") in company.open_alerts()


def test_account_deleted_meanwhile_opens_an_alert(worker: Worker, company: Company) -> None:
    case = company.case()
    _, transaction_id = worker.submit_ach(case)
    with company.sessions.begin() as session:
        session.execute(delete(LedgerEntry).where(LedgerEntry.account_id == case.account_id))
        session.execute(delete(Account).where(Account.id == case.account_id))
    worker.bank.control.settle()
    worker.heal()
    assert company.open_alerts() == [unknown_transfer(worker, transaction_id)]
