"""Auto-heal: late changes at the bank are recorded, and nothing is guessed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from seedtrust_ops.domain.transfers.auto_heal import find_reason_to_heal
from seedtrust_ops.domain.transfers.batch_processor import AllTransfersFailed
from seedtrust_ops.domain.transfers.leases import acquire_lease
from seedtrust_ops.ports.bank import BankInquiryFailed, BankUnauthorized
from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops.tables import BankFeedCursor, HuntingtonBatch, HuntingtonTransaction
from seedtrust_ops_tests.domain.transfers.transfer_worker import LONG_AGO, Worker, settings_for
from seedtrust_ops_tests.support.factories import Company


def test_submitted_ach_is_completed_and_booked_when_the_bank_settles_it(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=9_000)
    batch_id, transaction_id = worker.submit_ach(case)
    worker.bank.control.settle()

    worker.heal()

    assert company.statuses(batch_id) == ["completed"]
    assert company.ledger(transaction_id) == [("disbursement", -5_000)]
    assert company.balance_cents(case.account_id) == 4_000


def test_rejected_ach_fails_its_batch_with_the_banks_reason(worker: Worker, company: Company) -> None:
    case = company.case()
    batch_id, transaction_id = worker.submit_ach(case)
    worker.bank.control.reject_reference(str(transaction_id), "account is frozen")

    worker.heal()

    (transaction,) = company.transactions(batch_id)
    assert (transaction.status, transaction.failure_reason) == ("failed", "account is frozen")
    assert company.ledger(transaction_id) == []
    assert company.batch_row(batch_id).status == "failed"


def test_failure_reported_by_the_bank_is_not_looked_up_again(worker: Worker, company: Company) -> None:
    batch_id = company.batch([100])
    worker.bank.control.inject_fault("refuse", method="POST")
    with pytest.raises(AllTransfersFailed):
        worker.process(batch_id)
    assert worker.heal().inquiry.looked_up == 0


def test_transaction_under_a_live_lease_is_left_to_its_worker(worker: Worker, company: Company) -> None:
    batch_id = company.batch([100], status="processing")
    with company.sessions.begin() as session:
        acquire_lease(session, batch_id, "run-of-another", 60)
        session.execute(update(HuntingtonTransaction).values(status="processing", updated_at=LONG_AGO))
    assert worker.heal().inquiry.looked_up == 0
    assert company.statuses(batch_id) == ["processing"]


def test_batch_of_a_crashed_worker_is_requeued_at_once(worker: Worker, company: Company) -> None:
    batch_id = company.batch([100, 200], status="processing")
    with company.sessions.begin() as session:
        acquire_lease(session, batch_id, "crashed", 0)
    report = worker.heal(grace_seconds=600)
    assert report.abandoned == [batch_id]
    assert company.batch_row(batch_id).status == "queued"


def test_key_that_appears_late_at_the_bank_is_recorded_and_not_resent(worker: Worker, company: Company) -> None:
    batch_id = company.batch([600])
    (transaction,) = company.transactions(batch_id)
    worker.bank.control.insert_transfer(
        reference=str(transaction.id), amount_cents=600, idempotency_key=f"seedtrust-transaction-{transaction.id}"
    )
    worker.heal()
    assert company.statuses(batch_id) == ["completed"]
    worker.process(batch_id)
    assert worker.posts(transaction.id) == 0
    assert company.batch_row(batch_id).status == "completed"


def test_transfer_forgotten_by_the_bank_alerts_and_is_never_resent(worker: Worker, company: Company) -> None:
    case = company.case()
    batch_id, transaction_id = worker.submit_ach(case)
    worker.bank.control.forget_key(f"seedtrust-transaction-{transaction_id}")
    worker.heal()
    assert company.statuses(batch_id) == ["submitted"]
    assert ("transfer_forgotten_by_bank", f"transaction {transaction_id}") in company.open_alerts()


def test_second_transfer_for_a_sent_transaction_opens_an_alert(worker: Worker, company: Company) -> None:
    batch_id = company.batch([900])
    worker.process(batch_id)
    (transaction,) = company.transactions(batch_id)
    worker.bank.control.insert_transfer(
        reference=str(transaction.id), amount_cents=900, idempotency_key=f"somebody-elses-{transaction.id}"
    )
    worker.heal()
    assert ("second_transfer", f"transaction {transaction.id}") in company.open_alerts()
    assert company.ledger(transaction.id) == [("disbursement", -900)]


def test_open_transfers_are_looked_up_in_pages_of_100(worker: Worker, company: Company) -> None:
    batch_id = company.big_batch(250, method="ach")
    worker.process(batch_id)
    before = len(worker.bank.control.requests())

    report = worker.heal()

    look_ups = [
        request for request in worker.bank.control.requests()[before:] if "idempotency_key=" in request["query"]
    ]
    assert len(look_ups) == 3
    assert report.inquiry.looked_up == 250
    assert set(company.statuses(batch_id)) == {"submitted"}


def test_page_without_a_response_does_not_block_other_pages(worker: Worker, company: Company) -> None:
    batch_id = company.big_batch(150, method="ach")
    worker.process(batch_id)
    worker.bank.control.settle()
    worker.bank.control.inject_fault("garbage", method="GET", times=3)

    with pytest.raises(BankInquiryFailed, match="lookup"):
        worker.heal()

    assert company.statuses(batch_id).count("completed") >= 50
    worker.heal()
    assert set(company.statuses(batch_id)) == {"completed"}


def test_unauthorized_alert_opens_in_auto_heal_and_resolves_itself(
    worker: Worker, company: Company, bank: BankProcess
) -> None:
    worker.submit_ach(company.case())
    worker.settings = settings_for(bank, HUNTINGTON_API_KEY="wrong")
    with pytest.raises(BankUnauthorized):
        worker.heal()
    assert company.open_alerts() == [("bank_unauthorized", "huntington")]
    worker.settings = settings_for(bank)
    worker.heal()
    assert company.open_alerts() == []


def test_tick_has_work_if_something_is_open_or_the_feed_is_15_minutes_old(worker: Worker, company: Company) -> None:
    def reason() -> str | None:
        with company.sessions() as session:
            return find_reason_to_heal(session)

    assert "feed" in (reason() or "")
    worker.heal()
    assert reason() is None
    worker.submit_ach(company.case())
    assert "1 transaction awaiting bank status" in (reason() or "")
    worker.bank.control.settle()
    worker.heal()
    assert reason() is None
    with company.sessions.begin() as session:
        session.execute(update(BankFeedCursor).values(last_read_at=datetime.now(UTC) - timedelta(minutes=16)))
    assert "feed" in (reason() or "")
    with company.sessions.begin() as session:
        session.execute(update(BankFeedCursor).values(last_read_at=datetime.now(UTC)))
        session.execute(update(HuntingtonBatch).values(status="processing"))
    assert "processing" in (reason() or "")


def test_second_heal_changes_nothing(worker: Worker, company: Company) -> None:
    case = company.case()
    worker.submit_ach(case)
    worker.bank.control.settle()
    worker.heal()
    report = worker.heal()
    assert (report.inquiry.changes, report.feed.changes, report.finished) == ([], [], {})


def test_feed_cursor_stays_if_the_bank_has_nothing_new(worker: Worker, company: Company, tmp_path: Path) -> None:
    with start_bank(tmp_path / "bank.sqlite", api_key="a-key-of-this-test") as bank:
        worker.bank, worker.settings = bank, settings_for(bank)
        worker.heal()
        with company.sessions() as session:
            read_up_to = session.scalars(select(BankFeedCursor.read_up_to)).one()
    assert read_up_to < datetime.now(UTC) - timedelta(days=80)


def test_rejection_with_a_timeout_like_reason_is_final(worker: Worker, company: Company) -> None:
    batch_id, transaction_id = worker.submit_ach(company.case())
    worker.bank.control.reject_reference(str(transaction_id), "timeout at the receiving bank")
    worker.heal()
    assert company.statuses(batch_id) == ["failed"]
    assert worker.heal().inquiry.looked_up == 0


@pytest.mark.parametrize("suffix", ["0{id}", "99999999999999999999", "{id} ", "²"])
def test_key_that_only_resembles_ours_matches_no_transaction(worker: Worker, company: Company, suffix: str) -> None:
    batch_id = company.batch([100], status="draft")
    (transaction,) = company.transactions(batch_id)
    worker.bank.control.insert_transfer(
        reference="somebody's",
        amount_cents=123,
        idempotency_key=f"seedtrust-transaction-{suffix.format(id=transaction.id)}",
        created_at=datetime.now(UTC),
    )
    worker.heal()
    assert company.statuses(batch_id) == ["pending"]
    assert company.ledger(transaction.id) == []
