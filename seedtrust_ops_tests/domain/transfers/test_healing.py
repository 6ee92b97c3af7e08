"""Auto-heal: what the bank says becomes what is believed, however late, and nothing is guessed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from seedtrust_ops.bank import BankGaveNoAnswer, BankStatus, BankUnauthorized
from seedtrust_ops.domain.transfers.healing import what_needs_healing
from seedtrust_ops.domain.transfers.leases import take_lease
from seedtrust_ops.domain.transfers.outcomes import next_status
from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops.tables import BankFeedCursor, HuntingtonBatch, HuntingtonTransaction, Notification
from seedtrust_ops_tests.building import BuiltCase, Company
from seedtrust_ops_tests.domain.transfers.working import Worker, settings_for

LONG_AGO = datetime.now(UTC) - timedelta(days=30)


def _submitted(worker: Worker, company: Company, case: BuiltCase, cents: int = 5_000) -> tuple[int, int]:
    batch_id = company.batch(case=case)
    transaction_id = company.transaction(batch_id, company.request(case, cents), cents, method="ach")
    worker.process(batch_id)
    return batch_id, transaction_id


def _legacy_false_failure(company: Company, case: BuiltCase, cents: int = 7_000) -> tuple[int, int]:
    batch_id = company.batch(case=case, status="failed", finished_at=LONG_AGO)
    transaction_id = company.transaction(
        batch_id,
        company.request(case, cents),
        cents,
        method="ach",
        status="failed",
        failure_reason="timeout after 30 s",
        updated_at=LONG_AGO,
    )
    return batch_id, transaction_id


def test_submitted_ach_is_completed_and_booked_when_the_bank_settles_it(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=9_000)
    batch_id, transaction_id = _submitted(worker, company, case)
    worker.bank.control.settle()

    worker.heal()

    assert company.statuses(batch_id) == ["completed"]
    assert company.ledger(transaction_id) == [("disbursement", -5_000)]
    assert company.balance_cents(case.account_id) == 4_000


def test_rejected_ach_is_failed_with_the_banks_reason_and_the_batch_says_so(worker: Worker, company: Company) -> None:
    case = company.case()
    batch_id, transaction_id = _submitted(worker, company, case)
    worker.bank.control.reject_reference(str(transaction_id), "account is frozen")

    worker.heal()

    (transaction,) = company.transactions(batch_id)
    assert (transaction.status, transaction.failure_reason) == ("failed", "account is frozen")
    assert company.ledger(transaction_id) == []
    assert company.batch_row(batch_id).status == "failed"


def test_return_three_days_after_completion_is_reversed_once_and_told(
    worker: Worker, company: Company, tmp_path
) -> None:  # type: ignore[no-untyped-def]
    # A bank of its own: its clock is moved.
    with start_bank(tmp_path / "bank.sqlite", api_key="a-key-of-this-test") as bank:
        worker.bank, worker.settings = bank, settings_for(bank)
        case = company.case(balance_cents=9_000)
        batch_id, transaction_id = _submitted(worker, company, case)
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
    _, transaction_id = _submitted(worker, company, case)
    worker.bank.control.return_reference(str(transaction_id), "R01")
    worker.heal()
    with company.sessions() as session:
        assert session.scalars(select(Notification)).all() == []


def test_ach_that_came_back_before_it_was_ever_seen_completed_leaves_the_balance_as_it_was(
    worker: Worker, company: Company
) -> None:
    case = company.case(balance_cents=9_000)
    _, transaction_id = _submitted(worker, company, case)
    worker.bank.control.return_reference(str(transaction_id), "R02")
    worker.heal()
    assert company.ledger(transaction_id) == [("disbursement", -5_000), ("reversal", 5_000)]
    assert company.balance_cents(case.account_id) == 9_000


def test_legacy_false_failure_is_matched_by_reference_and_amount(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=9_000)
    batch_id, transaction_id = _legacy_false_failure(company, case)
    worker.bank.control.plant_transfer(reference=str(transaction_id), amount_cents=7_000)

    worker.heal()

    assert company.statuses(batch_id) == ["completed"]
    assert company.batch_row(batch_id).status == "completed"
    assert company.ledger(transaction_id) == [("disbursement", -7_000)]
    assert worker.posts(transaction_id) == 0


def test_legacy_transaction_in_processing_is_matched_by_reference(worker: Worker, company: Company) -> None:
    case = company.case()
    batch_id = company.batch(case=case, status="processing", started_at=LONG_AGO)
    transaction_id = company.transaction(
        batch_id, company.request(case, 800), 800, status="processing", updated_at=LONG_AGO
    )
    worker.bank.control.plant_transfer(reference=str(transaction_id), amount_cents=800)
    worker.heal()
    assert company.statuses(batch_id) == ["completed"]
    assert company.batch_row(batch_id).status == "completed"


@pytest.mark.parametrize("amounts", [[7_000, 7_000], [6_999]], ids=["two match", "another amount"])
def test_where_it_is_not_clear_which_transfer_is_ours_nobody_guesses(
    worker: Worker, company: Company, amounts: list[int]
) -> None:
    case = company.case()
    batch_id, transaction_id = _legacy_false_failure(company, case)
    for number, cents in enumerate(amounts):
        worker.bank.control.plant_transfer(
            reference=str(transaction_id), amount_cents=cents, idempotency_key=f"legacy-key-{transaction_id}-{number}"
        )

    worker.heal()

    assert company.statuses(batch_id) == ["failed"]
    assert company.batch_row(batch_id).status == "failed"
    assert company.open_alerts() == [("transfer_ambiguous", f"transaction {transaction_id}")]


def test_legacy_false_failure_that_the_bank_never_saw_is_queued_again_and_sent(
    worker: Worker, company: Company
) -> None:
    case = company.case()
    batch_id, transaction_id = _legacy_false_failure(company, case)
    worker.heal(grace_seconds=600)
    assert company.statuses(batch_id) == ["pending"]
    assert company.batch_row(batch_id).status == "queued"
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["submitted"]
    assert worker.posts(transaction_id) == 1


def test_failure_by_the_banks_word_is_not_asked_about(worker: Worker, company: Company) -> None:
    case = company.case()
    company.transaction(
        company.batch(case=case, status="failed", finished_at=LONG_AGO),
        company.request(case, 100),
        100,
        status="failed",
        failure_reason="insufficient_funds",
    )
    assert worker.heal().findings.asked == 0


def test_transaction_of_a_batch_with_a_live_lease_is_left_to_its_worker(worker: Worker, company: Company) -> None:
    batch_id = company.batch([100], status="processing")
    with company.sessions.begin() as session:
        take_lease(session, batch_id, "run-of-another", 60)
        session.execute(update(HuntingtonTransaction).values(status="processing", updated_at=LONG_AGO))
    assert worker.heal().findings.asked == 0
    assert company.statuses(batch_id) == ["processing"]


def test_pending_transactions_of_a_dead_workers_batch_are_queued_again_at_once(
    worker: Worker, company: Company
) -> None:
    batch_id = company.batch([100, 200], status="processing")
    with company.sessions.begin() as session:
        take_lease(session, batch_id, "dead", 0)
    report = worker.heal(grace_seconds=600)
    assert report.abandoned == [batch_id]
    assert company.batch_row(batch_id).status == "queued"


def test_batch_that_a_legacy_worker_left_is_asked_about_before_anything_is_sent_again(
    worker: Worker, company: Company
) -> None:
    """The legacy worker may have died between the bank's answer and its own note of it."""
    case = company.case()
    batch_id = company.batch(case=case, status="processing", started_at=LONG_AGO, created_at=LONG_AGO)
    sent = company.transaction(batch_id, company.request(case, 300), 300, updated_at=LONG_AGO)
    not_sent = company.transaction(batch_id, company.request(case, 400), 400, updated_at=LONG_AGO)
    worker.bank.control.plant_transfer(reference=str(sent), amount_cents=300)

    worker.heal(grace_seconds=60)
    assert company.statuses(batch_id) == ["completed", "pending"]
    worker.process(batch_id)

    assert company.statuses(batch_id) == ["completed", "completed"]
    assert (worker.posts(sent), worker.posts(not_sent)) == (0, 1)


def test_key_that_surfaces_after_it_went_back_to_pending_is_recorded_and_not_sent(
    worker: Worker, company: Company
) -> None:
    batch_id = company.batch([600])
    (transaction,) = company.transactions(batch_id)
    worker.bank.control.plant_transfer(
        reference=str(transaction.id), amount_cents=600, idempotency_key=f"seedtrust-transaction-{transaction.id}"
    )
    worker.heal()
    assert company.statuses(batch_id) == ["completed"]
    worker.process(batch_id)
    assert worker.posts(transaction.id) == 0
    assert company.batch_row(batch_id).status == "completed"


def test_transfer_that_the_bank_forgot_is_told_and_never_sent_again(worker: Worker, company: Company) -> None:
    case = company.case()
    batch_id, transaction_id = _submitted(worker, company, case)
    worker.bank.control.forget(f"seedtrust-transaction-{transaction_id}")
    worker.heal()
    assert company.statuses(batch_id) == ["submitted"]
    assert ("transfer_forgotten_by_bank", f"transaction {transaction_id}") in company.open_alerts()


def test_second_transfer_for_what_we_sent_is_told(worker: Worker, company: Company) -> None:
    batch_id = company.batch([900])
    worker.process(batch_id)
    (transaction,) = company.transactions(batch_id)
    worker.bank.control.plant_transfer(
        reference=str(transaction.id), amount_cents=900, idempotency_key=f"somebody-elses-{transaction.id}"
    )
    worker.heal()
    assert ("second_transfer", f"transaction {transaction.id}") in company.open_alerts()
    assert company.ledger(transaction.id) == [("disbursement", -900)]


def test_250_open_transfers_are_asked_about_in_pages_of_100(worker: Worker, company: Company) -> None:
    batch_id = company.big_batch(250, method="ach")
    worker.process(batch_id)
    before = len(worker.bank.control.requests())

    report = worker.heal()

    questions = [one for one in worker.bank.control.requests()[before:] if "idempotency_key=" in one["query"]]
    assert len(questions) == 3
    assert report.findings.asked == 250
    assert set(company.statuses(batch_id)) == {"submitted"}


def test_page_without_an_answer_does_not_keep_the_others_from_being_healed(worker: Worker, company: Company) -> None:
    batch_id = company.big_batch(150, method="ach")
    worker.process(batch_id)
    worker.bank.control.settle()
    worker.bank.control.order_fault("garbage", method="GET", times=3)

    with pytest.raises(BankGaveNoAnswer, match="look-up"):
        worker.heal()

    assert company.statuses(batch_id).count("completed") >= 50
    worker.heal()
    assert set(company.statuses(batch_id)) == {"completed"}


def test_wrong_bank_key_is_told_by_auto_heal_too_and_resolved_when_it_is_right(
    worker: Worker, company: Company, bank: BankProcess
) -> None:
    _submitted(worker, company, company.case())
    worker.settings = settings_for(bank, HUNTINGTON_API_KEY="wrong")
    with pytest.raises(BankUnauthorized):
        worker.heal()
    assert company.open_alerts() == [("bank_unauthorized", "huntington")]
    worker.settings = settings_for(bank)
    worker.heal()
    assert company.open_alerts() == []


def test_tick_has_work_while_something_is_open_or_the_feed_was_not_read_for_15_minutes(
    worker: Worker, company: Company
) -> None:
    def reason() -> str | None:
        with company.sessions() as session:
            return what_needs_healing(session)

    assert "feed" in (reason() or "")
    worker.heal()
    assert reason() is None
    _submitted(worker, company, company.case())
    assert "1 transactions wait" in (reason() or "")
    worker.bank.control.settle()
    worker.heal()
    assert reason() is None
    with company.sessions.begin() as session:
        session.execute(update(BankFeedCursor).values(last_read_at=datetime.now(UTC) - timedelta(minutes=16)))
    assert "feed" in (reason() or "")
    with company.sessions.begin() as session:
        session.execute(update(BankFeedCursor).values(last_read_at=datetime.now(UTC)))
        session.execute(update(HuntingtonBatch).values(status="processing"))
    assert "processed" in (reason() or "")


def test_healing_twice_changes_nothing_the_second_time(worker: Worker, company: Company) -> None:
    case = company.case()
    _submitted(worker, company, case)
    worker.bank.control.settle()
    worker.heal()
    report = worker.heal()
    assert (report.findings.changes, report.feed.changes, report.finished) == ([], [], {})


@pytest.mark.parametrize(
    ("current", "said", "becomes"),
    [
        ("processing", BankStatus.ACCEPTED, "submitted"),
        ("processing", BankStatus.COMPLETED, "completed"),
        ("processing", BankStatus.REJECTED, "failed"),
        ("processing", BankStatus.RETURNED, "returned"),
        ("submitted", BankStatus.ACCEPTED, None),
        ("submitted", BankStatus.REJECTED, "failed"),
        ("completed", BankStatus.ACCEPTED, None),
        ("completed", BankStatus.REJECTED, None),
        ("completed", BankStatus.RETURNED, "returned"),
        ("returned", BankStatus.ACCEPTED, None),
        ("returned", BankStatus.COMPLETED, None),
        ("returned", BankStatus.RETURNED, None),
        ("failed", BankStatus.COMPLETED, "completed"),
        ("pending", BankStatus.ACCEPTED, "submitted"),
    ],
)
def test_older_word_never_undoes_a_newer_one(current: str, said: BankStatus, becomes: str | None) -> None:
    assert next_status(current, said) == becomes


def test_plain_return_opens_no_alert(worker: Worker, company: Company) -> None:
    _, transaction_id = _submitted(worker, company, company.case())
    worker.bank.control.settle()
    worker.heal()
    worker.bank.control.return_reference(str(transaction_id), "R01")
    worker.heal()
    assert company.ledger(transaction_id) == [("disbursement", -5_000), ("reversal", 5_000)]
    assert company.open_alerts() == []


def test_legacy_transfer_still_under_way_is_asked_about_again_and_not_taken_for_forgotten(
    worker: Worker, company: Company
) -> None:
    batch_id, transaction_id = _legacy_false_failure(company, company.case())
    worker.bank.control.plant_transfer(
        reference=str(transaction_id), amount_cents=7_000, status="accepted", created_at=datetime.now(UTC)
    )
    worker.heal()
    worker.heal()
    assert company.statuses(batch_id) == ["submitted"]
    assert company.open_alerts() == []
    worker.bank.control.settle()
    worker.heal()
    assert company.statuses(batch_id) == ["completed"]


def test_feed_cursor_stays_where_it_is_when_the_bank_has_nothing_new(
    worker: Worker, company: Company, tmp_path: Path
) -> None:
    with start_bank(tmp_path / "bank.sqlite", api_key="a-key-of-this-test") as bank:
        worker.bank, worker.settings = bank, settings_for(bank)
        worker.heal()
        with company.sessions() as session:
            read_up_to = session.scalars(select(BankFeedCursor.read_up_to)).one()
    assert read_up_to < datetime.now(UTC) - timedelta(days=80)


def test_rejection_whose_reason_begins_like_a_timeout_is_the_banks_word(worker: Worker, company: Company) -> None:
    batch_id, transaction_id = _submitted(worker, company, company.case())
    worker.bank.control.reject_reference(str(transaction_id), "timeout at the receiving bank")
    worker.heal()
    assert company.statuses(batch_id) == ["failed"]
    assert worker.heal().findings.asked == 0


@pytest.mark.parametrize("suffix", ["0{id}", "99999999999999999999", "{id} ", "²"])
def test_key_that_only_looks_like_ours_is_nobodys(worker: Worker, company: Company, suffix: str) -> None:
    batch_id = company.batch([100], status="draft")
    (transaction,) = company.transactions(batch_id)
    worker.bank.control.plant_transfer(
        reference="somebody's",
        amount_cents=123,
        idempotency_key=f"seedtrust-transaction-{suffix.format(id=transaction.id)}",
        created_at=datetime.now(UTC),
    )
    worker.heal()
    assert company.statuses(batch_id) == ["pending"]
    assert company.ledger(transaction.id) == []


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


def test_legacy_batch_queued_again_by_hand_is_asked_about_before_it_is_sent(worker: Worker, company: Company) -> None:
    case = company.case()
    batch_id = company.batch(case=case, status="queued", started_at=LONG_AGO)
    sent = company.transaction(batch_id, company.request(case, 300), 300, updated_at=LONG_AGO)
    worker.bank.control.plant_transfer(reference=str(sent), amount_cents=300)
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["completed"]
    assert worker.posts(sent) == 0
