"""What is in flight follows from what was sent and what the bank said, whatever people write into the rows."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.health.settlement import settlement_overdue
from seedtrust_ops.domain.transfers.attempts import idempotency_key
from seedtrust_ops.domain.transfers.bank_feed import record_lost
from seedtrust_ops.domain.transfers.batch_lifecycle import lock_batches
from seedtrust_ops.domain.transfers.batch_processor import AllTransfersFailed
from seedtrust_ops.domain.transfers.evidence import (
    Reading,
    read_answer,
)
from seedtrust_ops.domain.transfers.status_transitions import apply_bank_statuses
from seedtrust_ops.ports.bank import BankStatus, BankTransfer
from seedtrust_ops.tables import (
    HuntingtonBatch,
    HuntingtonTransaction,
    TransferAttempt,
    TransferEvidence,
)
from seedtrust_ops_tests.domain.transfers.payment_stages import (
    CHANGES,
    evidence_of,
    pay_again,
    request_of,
    send_without_answer,
    set_evidence,
    set_transaction,
    transaction_status,
    unknown_transfer,
)
from seedtrust_ops_tests.domain.transfers.transfer_worker import LONG_AGO, Worker
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.waiters import wait_until

KNOWN_AT = datetime(2026, 3, 2, 12, tzinfo=UTC)


ACCEPTED, COMPLETED, REJECTED, RETURNED = BankStatus


PROGRESS = {
    (known, answer)
    for known, answer in product((None, *BankStatus), BankStatus)
    if known in (None, ACCEPTED, answer) or (known, answer) == (COMPLETED, RETURNED)
}


def bank_answer(status: BankStatus, updated_at: datetime) -> BankTransfer:
    return BankTransfer("tr_1", "key", status, "ach", 100, "1", updated_at, updated_at)


@pytest.mark.parametrize("known", [None, *BankStatus])
@pytest.mark.parametrize("answer", BankStatus)
def test_newer_answer_counts_and_an_older_one_does_not(known: BankStatus | None, answer: BankStatus) -> None:
    readings = [
        read_answer(known, KNOWN_AT, bank_answer(answer, KNOWN_AT + timedelta(seconds=seconds)))
        for seconds in (-1, 0, 1)
    ]
    newer = Reading.CURRENT if (known, answer) in PROGRESS else Reading.CONTRADICTION
    # Within one tick of the bank's clock, 'accepted' cannot be told from what came after it.
    same = Reading.OLDER if newer is Reading.CONTRADICTION and answer is ACCEPTED else newer
    assert readings == [Reading.OLDER, same, newer]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_row_frees_neither_its_request_nor_its_cents(worker: Worker, company: Company, change: str) -> None:
    case = company.case(balance_cents=9_000)
    _, transaction_id = worker.submit_ach(case)
    request_id = request_of(company, transaction_id)
    CHANGES[change](company, transaction_id)

    reason = pay_again(worker, company, case, request_id)
    other = pay_again(worker, company, case, company.request(case, 5_000))

    assert reason == (f"not sent: transaction {transaction_id} may already have paid disbursement request {request_id}")
    assert "the case's account has 4000 cents available after what is in flight" in other


def test_unknown_outcome_failed_by_hand_still_blocks_and_is_asked_about(worker: Worker, company: Company) -> None:
    case = company.case()
    _, transaction_id = send_without_answer(worker, company, case)
    request_id = request_of(company, transaction_id)
    CHANGES["failed"](company, transaction_id)
    assert worker.heal(grace_seconds=600).inquiry.looked_up == 1
    assert "may already have paid" in pay_again(worker, company, case, request_id)

    # The bank does not know the key after the grace period. A late arrival may still pay it, for a day.
    worker.heal()
    assert transaction_status(company, transaction_id) == "failed"
    assert "may already have paid" in pay_again(worker, company, case, request_id)

    with company.sessions.begin() as session:
        session.execute(update(TransferEvidence).values(unknown_to_bank_at=LONG_AGO))
        session.execute(update(HuntingtonTransaction).values(updated_at=LONG_AGO))
    batch_id = company.batch(case=case)
    company.transaction(batch_id, request_id, 5_000, method="ach")
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["submitted"]


def test_legacy_transaction_set_back_to_pending_blocks_its_request(worker: Worker, company: Company) -> None:
    case = company.case()
    request_id = company.request(case, 5_000)
    legacy = company.batch(case=case, status="processing", started_at=LONG_AGO, created_at=LONG_AGO)
    company.transaction(legacy, request_id, 5_000, status="processing", updated_at=LONG_AGO)
    worker.heal()
    assert company.statuses(legacy) == ["pending"]
    with company.sessions.begin() as session:
        session.execute(update(HuntingtonBatch).where(HuntingtonBatch.id == legacy).values(status="held"))
    assert "may already have paid" in pay_again(worker, company, case, request_id)


def test_lagging_lookup_opens_no_alert_and_resends_nothing(worker: Worker, company: Company) -> None:
    case = company.case()
    _, accepted = worker.submit_ach(case)
    _, unanswered = send_without_answer(worker, company, case)
    worker.bank.control.inject_fault("lagging_lookup", method="GET", path="/v1/transfers", times=None)
    report = worker.heal(grace_seconds=600)
    assert (report.inquiry.looked_up, company.open_alerts()) == (2, [])

    with company.sessions.begin() as session:
        session.execute(
            update(TransferEvidence).values(missing_since=TransferEvidence.missing_since - timedelta(hours=1))
        )
    worker.heal(grace_seconds=600)
    assert company.open_alerts() == [("transfer_forgotten_by_bank", f"transaction {accepted}")]
    assert transaction_status(company, unanswered) == "processing"

    worker.bank.control.clear_faults()
    worker.heal()
    worker.heal()
    assert company.open_alerts() == []
    assert transaction_status(company, unanswered) == "pending"


def test_lost_key_counts_as_forgotten_although_the_feed_has_the_transfer(worker: Worker, company: Company) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    worker.heal(grace_seconds=600)
    worker.bank.control.forget_key(idempotency_key(transaction_id))
    worker.heal(grace_seconds=600)
    with company.sessions.begin() as session:
        missing_since = TransferEvidence.missing_since - timedelta(hours=1)
        session.execute(update(TransferEvidence).values(missing_since=missing_since))
    worker.heal(grace_seconds=600)
    worker.heal(grace_seconds=600)
    assert company.open_alerts() == [("transfer_forgotten_by_bank", f"transaction {transaction_id}")]


def test_refused_and_unsent_transfers_block_nothing(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=5_000)
    batch_id = company.batch(case=case)
    request_id = company.request(case, 5_000)
    company.transaction(batch_id, request_id, 5_000)
    worker.bank.control.inject_fault("refuse", method="POST")
    with pytest.raises(AllTransfersFailed):
        worker.process(batch_id)
    again = company.batch(case=case)
    company.transaction(again, request_id, 5_000)
    worker.process(again)
    assert company.statuses(again) == ["completed"]
    with company.sessions() as session:
        assert session.scalars(select(TransferEvidence.state).order_by(TransferEvidence.transaction_id)).all() == [
            "not_moved",
            "moved",
        ]
        assert session.scalars(select(TransferAttempt.id)).all()


def test_request_that_a_legacy_transfer_gets_later_is_blocked(worker: Worker, company: Company) -> None:
    case = company.case()
    request_id = company.request(case, 5_000)
    batch_id = company.batch(case=case, status="processing", started_at=LONG_AGO, created_at=LONG_AGO)
    transaction_id = company.transaction(batch_id, request_id, 5_000, status="processing", updated_at=LONG_AGO)
    set_transaction(company, transaction_id, disbursement_request_id=None, updated_at=LONG_AGO)
    worker.heal()
    set_transaction(company, transaction_id, disbursement_request_id=request_id)
    assert "may already have paid" in pay_again(worker, company, case, request_id)

    # It is sent as the legacy worker sent it, and what nobody can book is not kept from people.
    worker.bank.control.inject_fault("reset_after_commit", method="POST")
    worker.bank.control.inject_fault("error_before_commit", method="GET", path="/v1/transfers", times=1)
    worker.process(batch_id)
    assert "may already have paid" in pay_again(worker, company, case, request_id)
    worker.bank.control.settle()
    worker.heal()
    assert unknown_transfer(worker, transaction_id) in company.open_alerts()
    assert "may already have paid" in pay_again(worker, company, case, request_id)


def test_key_that_blocks_nothing_any_more_is_left_to_the_feed(worker: Worker, company: Company) -> None:
    _, transaction_id = send_without_answer(worker, company, company.case())
    CHANGES["failed"](company, transaction_id)
    worker.heal()
    assert worker.heal().inquiry.looked_up == 1
    with company.sessions.begin() as session:
        session.execute(update(TransferEvidence).values(unknown_to_bank_at=LONG_AGO))
        session.execute(update(HuntingtonTransaction).values(updated_at=LONG_AGO))
    assert worker.heal().inquiry.looked_up == 0

    worker.bank.control.insert_transfer(
        reference=str(transaction_id), amount_cents=5_000, idempotency_key=idempotency_key(transaction_id)
    )
    worker.heal()
    assert transaction_status(company, transaction_id) == "completed"


def test_acceptance_time_and_amount_are_kept_as_the_bank_says(worker: Worker, company: Company) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    transfer = worker.bank_transfers([transaction_id])[transaction_id]
    created_at = datetime.fromisoformat(transfer["created_at"])
    known = evidence_of(company, transaction_id)
    assert (known.bank_created_at, known.bank_amount_cents) == (created_at, 5_000)

    # What was recorded by an older release gets them with the bank's next answer.
    set_evidence(company, bank_created_at=None, bank_amount_cents=None)
    worker.heal()
    known = evidence_of(company, transaction_id)
    assert (known.bank_created_at, known.bank_amount_cents) == (created_at, 5_000)


def test_acceptance_time_is_never_in_the_future(worker: Worker, company: Company) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    set_evidence(company, bank_created_at=None)
    answer = BankTransfer(
        id=evidence_of(company, transaction_id).bank_transfer_id or "",
        idempotency_key=idempotency_key(transaction_id),
        status=ACCEPTED,
        method="ach",
        amount_cents=5_000,
        reference=str(transaction_id),
        created_at=datetime(2199, 1, 1, tzinfo=UTC),
        updated_at=datetime.now(UTC) + timedelta(minutes=1),
    )
    with company.sessions.begin() as session:
        apply_bank_statuses(session, {transaction_id: answer})
    recorded = evidence_of(company, transaction_id).bank_created_at
    assert recorded is not None
    assert recorded <= datetime.now(UTC)


@pytest.mark.parametrize("status", ["submitted", "failed"])
def test_overdue_settlement_is_found_until_the_bank_settles_it(worker: Worker, company: Company, status: str) -> None:
    batch_id, transaction_id = worker.submit_ach(company.case())
    set_transaction(company, transaction_id, status=status)

    def overdue() -> list[str]:
        with company.sessions() as session:
            return [one.subject for one in settlement_overdue(session, now=datetime.now(UTC))]

    assert overdue() == []
    set_evidence(company, bank_created_at=LONG_AGO)
    assert overdue() == [f"batch {batch_id}"]
    worker.bank.control.settle()
    worker.heal()
    assert overdue() == []


def test_missing_transfers_are_recorded_without_a_deadlock(worker: Worker, company: Company) -> None:
    case = company.case()
    batch_id = company.batch(case=case)
    ids = [company.transaction(batch_id, company.request(case, 100), 100, method="ach") for _ in range(2)]
    worker.process(batch_id)
    with company.sessions.begin() as session:
        # It now lies behind the second row, and a statement that locks the rows as they lie begins with that.
        session.execute(update(TransferEvidence).where(TransferEvidence.transaction_id == ids[0]).values(state="moved"))

    def lock_evidence(session: Session, transaction_id: int) -> None:
        session.execute(
            select(TransferEvidence.state).where(TransferEvidence.transaction_id == transaction_id).with_for_update()
        )

    with ThreadPoolExecutor(1) as pool, company.sessions.begin() as other:
        lock_batches(other, [batch_id])
        lock_evidence(other, ids[0])
        recording = pool.submit(record_missing_once, company, ids)
        wait_until(lambda: is_waiting_for_a_lock(company), what="a wait for a lock")
        lock_evidence(other, ids[1])
        other.rollback()
        recording.result()


def record_missing_once(company: Company, transaction_ids: list[int]) -> None:
    """Record them in one try, because a deadlock is otherwise retried."""
    with company.sessions.begin() as session:
        record_lost(session, transaction_ids, 600)


def is_waiting_for_a_lock(company: Company) -> bool:
    with company.sessions() as session:
        return bool(session.scalar(text("select count(*) from pg_locks where not granted")))
