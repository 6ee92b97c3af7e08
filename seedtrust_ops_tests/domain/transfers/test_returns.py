"""Returned transfers are reversed once and emailed once, and a return by itself opens no alert."""

from datetime import UTC, datetime

from sqlalchemy import select, update

from seedtrust_ops.sandbox.bank.process import start_bank
from seedtrust_ops.tables import BankFeedCursor, DisbursementRequest, Notification
from seedtrust_ops_tests.domain.transfers.transfer_worker import LONG_AGO, Worker, settings_for
from seedtrust_ops_tests.support.factories import Company


def test_return_three_days_later_is_reversed_once_and_emailed(worker: Worker, company: Company, tmp_path) -> None:  # type: ignore[no-untyped-def]
    # This test needs its own bank, because it changes the bank's clock.
    with start_bank(tmp_path / "bank.sqlite", api_key="a-key-of-this-test") as bank:
        worker.bank, worker.settings = bank, settings_for(bank)
        case = company.case(balance_cents=9_000)
        batch_id, transaction_id = worker.submit_ach(case)
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
            (notification,) = session.scalars(select(Notification)).all()
        assert notification.recipient_id == case.specialist_id
        assert notification.kind == "transfer-returned"
        assert notification.variables["return_code"] == "R03"
        # The bank's clock runs three days ahead; today's changes must still be read.
        with company.sessions() as session:
            assert session.scalars(select(BankFeedCursor.read_up_to)).one() <= datetime.now(UTC)


def test_return_of_an_ach_never_seen_completed_keeps_the_balance(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=9_000)
    _, transaction_id = worker.submit_ach(case)
    worker.bank.control.return_reference(str(transaction_id), "R02")
    worker.heal()
    assert company.ledger(transaction_id) == [("disbursement", -5_000), ("reversal", 5_000)]
    assert company.balance_cents(case.account_id) == 9_000


def test_return_does_not_approve_a_request_denied_meanwhile(worker: Worker, company: Company) -> None:
    batch_id, transaction_id = worker.submit_ach(company.case())
    (transaction,) = company.transactions(batch_id)
    with company.sessions.begin() as session:
        session.execute(update(DisbursementRequest).values(status="denied"))
    worker.bank.control.return_reference(str(transaction_id), "R02")

    worker.heal()

    assert company.request_status(transaction.disbursement_request_id) == "denied"
    assert company.ledger(transaction_id) == [("disbursement", -5_000), ("reversal", 5_000)]
    assert company.open_alerts() == []


def test_return_opens_no_alert(worker: Worker, company: Company) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    worker.bank.control.settle()
    worker.heal()
    worker.bank.control.return_reference(str(transaction_id), "R01")
    worker.heal()
    assert company.ledger(transaction_id) == [("disbursement", -5_000), ("reversal", 5_000)]
    assert company.open_alerts() == []


def test_request_paid_twice_stays_paid_if_one_payment_is_returned(worker: Worker, company: Company) -> None:
    case = company.case()
    request_id = company.request(case, 500)
    other = company.batch(case=case, status="completed", finished_at=LONG_AGO)
    company.transaction(other, request_id, 500, status="completed", completed_at=LONG_AGO)
    batch_id = company.batch(case=case, status="completed", finished_at=LONG_AGO)
    transaction_id = company.transaction(batch_id, request_id, 500, method="ach", status="submitted")
    worker.bank.control.insert_transfer(
        reference=str(transaction_id), amount_cents=500, idempotency_key=f"seedtrust-transaction-{transaction_id}"
    )
    worker.heal()
    worker.bank.control.return_reference(str(transaction_id), "R01")
    worker.heal()
    assert company.request_status(request_id) == "paid"
