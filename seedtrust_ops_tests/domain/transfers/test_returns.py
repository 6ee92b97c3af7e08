"""Transfers that come back: booked back once, told once, and nothing is told that is no trouble."""

from datetime import UTC, datetime

from sqlalchemy import select, update

from seedtrust_ops.sandbox.bank.process import start_bank
from seedtrust_ops.tables import BankFeedCursor, DisbursementRequest, Notification
from seedtrust_ops_tests.domain.transfers.transfer_worker import LONG_AGO, Worker, settings_for
from seedtrust_ops_tests.support.factories import Company


def test_return_three_days_after_completion_is_reversed_once_and_told(
    worker: Worker, company: Company, tmp_path
) -> None:  # type: ignore[no-untyped-def]
    # A bank of its own: its clock is moved.
    with start_bank(tmp_path / "bank.sqlite", api_key="a-key-of-this-test") as bank:
        worker.bank, worker.settings = bank, settings_for(bank)
        case = company.case(balance_cents=9_000)
        batch_id, transaction_id = worker.submitted(case)
        bank.control.settle()
        worker.heal()
        bank.control.set_clock(offset_seconds=3 * 86_400)
        bank.control.return_reference(str(transaction_id), "R03")

        worker.heal()
        worker.heal()

        (transaction,) = company.transactions(batch_id)
        assert (transaction.status, transaction.failure_reason) == ("returned", "R03")
        assert company.ledger(transaction_id) == [("disbursement", -5_000), ("reversal", 5_000)]
        assert company.balance_cents(case.account_id) == 9_000
        assert company.request_status(transaction.disbursement_request_id) == "approved"
        with company.sessions() as session:
            (letter,) = session.scalars(select(Notification)).all()
        assert letter.recipient_id == case.specialist_id
        assert letter.kind == "transfer-returned"
        assert letter.variables["return_code"] == "R03"
        # The bank's clock runs three days ahead; what it says today must still be read.
        with company.sessions() as session:
            assert session.scalars(select(BankFeedCursor.read_up_to)).one() <= datetime.now(UTC)


def test_inactive_escrow_specialist_gets_no_letter(worker: Worker, company: Company) -> None:
    case = company.case(specialist_active=False)
    _, transaction_id = worker.submitted(case)
    worker.bank.control.return_reference(str(transaction_id), "R01")
    worker.heal()
    with company.sessions() as session:
        assert session.scalars(select(Notification)).all() == []


def test_ach_that_came_back_before_it_was_ever_seen_completed_leaves_the_balance_as_it_was(
    worker: Worker, company: Company
) -> None:
    case = company.case(balance_cents=9_000)
    _, transaction_id = worker.submitted(case)
    worker.bank.control.return_reference(str(transaction_id), "R02")
    worker.heal()
    assert company.ledger(transaction_id) == [("disbursement", -5_000), ("reversal", 5_000)]
    assert company.balance_cents(case.account_id) == 9_000


def test_request_that_was_denied_meanwhile_is_not_approved_by_a_transfer_that_came_back(
    worker: Worker, company: Company
) -> None:
    batch_id, transaction_id = worker.submitted(company.case())
    (transaction,) = company.transactions(batch_id)
    with company.sessions.begin() as session:
        session.execute(update(DisbursementRequest).values(status="denied"))
    worker.bank.control.return_reference(str(transaction_id), "R02")

    worker.heal()

    assert company.request_status(transaction.disbursement_request_id) == "denied"
    assert company.ledger(transaction_id) == [("disbursement", -5_000), ("reversal", 5_000)]
    assert company.open_alerts() == []


def test_plain_return_opens_no_alert(worker: Worker, company: Company) -> None:
    _, transaction_id = worker.submitted(company.case())
    worker.bank.control.settle()
    worker.heal()
    worker.bank.control.return_reference(str(transaction_id), "R01")
    worker.heal()
    assert company.ledger(transaction_id) == [("disbursement", -5_000), ("reversal", 5_000)]
    assert company.open_alerts() == []


def test_request_paid_by_two_transactions_stays_paid_when_one_of_them_comes_back(
    worker: Worker, company: Company
) -> None:
    case = company.case()
    request_id = company.request(case, 500)
    other = company.batch(case=case, status="completed", finished_at=LONG_AGO)
    company.transaction(other, request_id, 500, status="completed", completed_at=LONG_AGO)
    batch_id = company.batch(case=case, status="completed", finished_at=LONG_AGO)
    transaction_id = company.transaction(batch_id, request_id, 500, method="ach", status="submitted")
    worker.bank.control.plant_transfer(
        reference=str(transaction_id), amount_cents=500, idempotency_key=f"seedtrust-transaction-{transaction_id}"
    )
    worker.heal()
    worker.bank.control.return_reference(str(transaction_id), "R01")
    worker.heal()
    assert company.request_status(request_id) == "paid"
