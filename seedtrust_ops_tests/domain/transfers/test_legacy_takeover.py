"""Transactions of the legacy worker are matched by reference and amount, or a person is asked; nothing is guessed."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, update

from seedtrust_ops.domain.transfers.batch_lifecycle import BatchNotQueued
from seedtrust_ops.domain.transfers.batch_processor import AllTransfersFailed
from seedtrust_ops.domain.transfers.settlement import known_bank_id
from seedtrust_ops.ports.bank import BankUnauthorized
from seedtrust_ops.tables import HuntingtonBatch, HuntingtonTransaction, LegacyInquiry
from seedtrust_ops_tests.domain.transfers.transfer_worker import LONG_AGO, Worker
from seedtrust_ops_tests.support.factories import BuiltCase, Company


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


def test_legacy_false_failure_is_matched_by_reference_and_amount(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=9_000)
    batch_id, transaction_id = _legacy_false_failure(company, case)
    worker.bank.control.insert_transfer(reference=str(transaction_id), amount_cents=7_000)

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
    worker.bank.control.insert_transfer(reference=str(transaction_id), amount_cents=800)
    worker.heal()
    assert company.statuses(batch_id) == ["completed"]
    assert company.batch_row(batch_id).status == "completed"


@pytest.mark.parametrize("amounts", [[7_000, 7_000], [6_999]], ids=["two match", "another amount"])
def test_ambiguous_match_opens_an_alert_and_changes_nothing(
    worker: Worker, company: Company, amounts: list[int]
) -> None:
    case = company.case()
    batch_id, transaction_id = _legacy_false_failure(company, case)
    for number, cents in enumerate(amounts):
        worker.bank.control.insert_transfer(
            reference=str(transaction_id), amount_cents=cents, idempotency_key=f"legacy-key-{transaction_id}-{number}"
        )

    worker.heal()

    assert company.statuses(batch_id) == ["failed"]
    assert company.batch_row(batch_id).status == "failed"
    rules = [rule for rule, _ in company.open_alerts()]
    assert ("transfer_ambiguous", f"transaction {transaction_id}") in company.open_alerts()
    assert rules == ["transfer_ambiguous", *["unknown_transfer"] * len(amounts)]


@pytest.mark.parametrize("status", ["completed", "returned"])
def test_status_written_over_a_legacy_failure_is_not_believed(worker: Worker, company: Company, status: str) -> None:
    """The bank never said so: its answer is the first, and is booked."""
    batch_id, transaction_id = _legacy_false_failure(company, company.case())
    worker.bank.control.insert_transfer(reference=str(transaction_id), amount_cents=7_000)
    with company.sessions.begin() as session:
        session.execute(update(HuntingtonTransaction).values(status=status, failure_reason=None))
    worker.heal()
    assert company.statuses(batch_id) == ["completed"]
    assert company.ledger(transaction_id) == [("disbursement", -7_000)]
    assert company.open_alerts() == []


def test_legacy_false_failure_unknown_to_the_bank_is_requeued_and_sent(worker: Worker, company: Company) -> None:
    case = company.case()
    batch_id, transaction_id = _legacy_false_failure(company, case)
    worker.heal(grace_seconds=600)
    assert company.statuses(batch_id) == ["pending"]
    assert company.batch_row(batch_id).status == "queued"
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["submitted"]
    assert worker.posts(transaction_id) == 1


def test_abandoned_legacy_batch_is_looked_up_before_anything_is_resent(worker: Worker, company: Company) -> None:
    """The legacy worker may have crashed between the bank's response and recording it."""
    case = company.case()
    batch_id = company.batch(case=case, status="processing", started_at=LONG_AGO, created_at=LONG_AGO)
    sent = company.transaction(batch_id, company.request(case, 300), 300, updated_at=LONG_AGO)
    not_sent = company.transaction(batch_id, company.request(case, 400), 400, updated_at=LONG_AGO)
    worker.bank.control.insert_transfer(reference=str(sent), amount_cents=300)

    worker.heal(grace_seconds=60)
    assert company.statuses(batch_id) == ["completed", "pending"]
    worker.process(batch_id)

    assert company.statuses(batch_id) == ["completed", "completed"]
    assert (worker.posts(sent), worker.posts(not_sent)) == (0, 1)


def test_legacy_transfer_in_flight_is_looked_up_again_without_an_alert(worker: Worker, company: Company) -> None:
    batch_id, transaction_id = _legacy_false_failure(company, company.case())
    worker.bank.control.insert_transfer(
        reference=str(transaction_id), amount_cents=7_000, status="accepted", created_at=datetime.now(UTC)
    )
    worker.heal()
    worker.heal()
    assert company.statuses(batch_id) == ["submitted"]
    assert company.open_alerts() == []
    worker.bank.control.settle()
    worker.heal()
    assert company.statuses(batch_id) == ["completed"]


def test_legacy_batch_requeued_by_hand_is_looked_up_before_sending(worker: Worker, company: Company) -> None:
    case = company.case()
    batch_id = company.batch(case=case, status="queued", started_at=LONG_AGO)
    sent = company.transaction(batch_id, company.request(case, 300), 300, updated_at=LONG_AGO)
    worker.bank.control.insert_transfer(reference=str(sent), amount_cents=300)
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["completed"]
    assert worker.posts(sent) == 0


def test_batch_a_legacy_worker_may_still_send_is_not_requeued(worker: Worker, company: Company) -> None:
    """The batch is recent although one of its failures is old: anything requeued would be sent by both workers."""
    case = company.case()
    batch_id = company.batch(case=case, status="processing", started_at=datetime.now(UTC))
    company.transaction(
        batch_id, company.request(case, 300), 300, status="failed", failure_reason="timeout", updated_at=LONG_AGO
    )
    company.transaction(batch_id, company.request(case, 400), 400)

    worker.heal(grace_seconds=600)

    assert company.statuses(batch_id) == ["failed", "pending"]
    assert company.batch_row(batch_id).status == "processing"


def test_pending_beside_a_false_failure_is_looked_up_before_sending(worker: Worker, company: Company) -> None:
    case = company.case()
    batch_id, false_failure = _legacy_false_failure(company, case)
    sent = company.transaction(batch_id, company.request(case, 400), 400, updated_at=LONG_AGO)
    # So old that the feed does not contain it.
    worker.bank.control.insert_transfer(
        reference=str(sent), amount_cents=400, created_at=LONG_AGO - timedelta(days=365)
    )

    worker.heal(grace_seconds=600)
    assert company.batch_row(batch_id).status == "queued"
    worker.process(batch_id)

    assert company.statuses(batch_id) == ["submitted", "completed"]
    assert (worker.posts(false_failure), worker.posts(sent)) == (1, 0)


@pytest.mark.parametrize("left_as", ["processing", "queued"])
def test_batch_retaken_by_a_legacy_worker_is_looked_up_before_sending(
    worker: Worker, company: Company, left_as: str
) -> None:
    case = company.case()
    batch_id = company.batch(case=case)
    sent = company.transaction(batch_id, company.request(case, 400), 400)
    worker.bank.control.inject_fault("unauthorized", method="POST")
    with pytest.raises(BankUnauthorized):
        worker.process(batch_id)
    assert company.batch_row(batch_id).status == "queued"
    _claim_as_legacy_worker(company, batch_id, left_as)
    worker.bank.control.insert_transfer(reference=str(sent), amount_cents=400)

    if left_as == "processing":
        worker.heal(grace_seconds=600)
        assert company.statuses(batch_id) == ["pending"]
        with pytest.raises(BatchNotQueued, match="legacy"):
            worker.process(batch_id)
    else:
        worker.process(batch_id)
    worker.heal()

    # Our request was rejected (401) and the bank has another transfer with its reference: a person has to decide.
    assert company.statuses(batch_id) == ["processing"]
    assert ("transfer_ambiguous", f"transaction {sent}") in company.open_alerts()
    assert worker.posts(sent) == 1


def _claim_as_legacy_worker(company: Company, batch_id: int, left_as: str) -> None:
    with company.sessions.begin() as session:
        session.execute(
            update(HuntingtonBatch)
            .where(HuntingtonBatch.id == batch_id)
            .values(status=left_as, started_at=func.clock_timestamp())
        )


def _legacy_failure(company: Company, case: BuiltCase, reason: str | None = "insufficient funds") -> tuple[int, int]:
    batch_id = company.batch(case=case, status="failed", started_at=LONG_AGO, finished_at=LONG_AGO)
    request_id = company.request(case, 7_000)
    columns = {"method": "ach", "status": "failed", "failure_reason": reason, "updated_at": LONG_AGO}
    return batch_id, company.transaction(batch_id, request_id, 7_000, **columns)


@pytest.mark.parametrize("reason", [None, "insufficient funds", "('Connection aborted.', RemoteDisconnected())"])
def test_legacy_failure_is_asked_about_once_and_then_with_backoff(
    worker: Worker, company: Company, reason: str | None
) -> None:
    case = company.case()
    batch_id, transaction_id = _legacy_failure(company, case, reason)
    assert [worker.heal().inquiry.looked_up for _ in range(2)] == [1, 0]
    assert company.statuses(batch_id) == ["failed"]
    pauses = []
    for _ in range(12):
        with company.sessions.begin() as session:
            next_at, now = session.execute(select(LegacyInquiry.next_inquiry_at, func.now())).one()
            session.execute(update(LegacyInquiry).values(next_inquiry_at=now))
        pauses.append(round((next_at - now) / timedelta(hours=1)))
        assert worker.heal().inquiry.looked_up == 1
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses[-1] == 30 * 24

    # So old that the feed does not contain it.
    worker.bank.control.insert_transfer(
        reference=str(transaction_id), amount_cents=7_000, created_at=LONG_AGO - timedelta(days=365)
    )
    with company.sessions.begin() as session:
        session.execute(update(LegacyInquiry).values(next_inquiry_at=func.now()))
    worker.heal()
    assert company.statuses(batch_id) == ["completed"]
    assert company.ledger(transaction_id) == [("disbursement", -7_000)]


def test_legacy_failure_blocks_its_request_until_the_bank_was_asked(worker: Worker, company: Company) -> None:
    case = company.case()
    _, transaction_id = _legacy_failure(company, case)
    with company.sessions() as session:
        request_id = session.scalar(select(HuntingtonTransaction.disbursement_request_id))
    again = company.batch(case=case)
    company.transaction(again, request_id, 7_000)
    with pytest.raises(AllTransfersFailed, match=f"transaction {transaction_id} may already have paid"):
        worker.process(again)
    worker.heal()
    again = company.batch(case=case)
    company.transaction(again, request_id, 7_000)
    worker.process(again)
    assert company.statuses(again) == ["completed"]


def test_legacy_failure_with_another_amount_at_the_bank_is_settled_by_a_person(
    worker: Worker, company: Company
) -> None:
    _, transaction_id = _legacy_failure(company, company.case())
    worker.bank.control.insert_transfer(reference=str(transaction_id), amount_cents=6_999)
    worker.heal()
    assert ("transfer_ambiguous", f"transaction {transaction_id}") in company.open_alerts()
    with company.sessions() as session:
        assert known_bank_id(session, transaction_id) is None


@pytest.mark.parametrize(
    ("reason", "started_at"), [("not sent: the case has no account", LONG_AGO), ("set by hand", None)]
)
def test_failure_that_can_not_have_been_sent_is_not_asked_about(
    worker: Worker, company: Company, reason: str, started_at: datetime | None
) -> None:
    batch_id, _ = _legacy_failure(company, company.case(), reason)
    with company.sessions.begin() as session:
        session.execute(update(HuntingtonBatch).where(HuntingtonBatch.id == batch_id).values(started_at=started_at))
    assert worker.heal().inquiry.looked_up == 0
