"""Processing a batch from the queue to its end: the claim, what blocks sending, and the final status."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, update

from seedtrust_ops.domain.transfers.account_numbers import WrongFieldKey
from seedtrust_ops.domain.transfers.batch_lifecycle import (
    AllTransfersFailed,
    BatchNotQueued,
    UnknownBatch,
    list_queued_batches,
)
from seedtrust_ops.domain.transfers.kill_switch import TransfersHalted, halt, resume
from seedtrust_ops.domain.transfers.leases import Lease, acquire_lease
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.tables import BatchLease, HuntingtonBatch, HuntingtonTransaction
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker
from seedtrust_ops_tests.support.factories import Company


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


def test_ach_is_submitted_but_not_booked_or_paid_before_settlement(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=50_000)
    batch_id = company.batch(case=case)
    transaction_id = company.transaction(batch_id, company.request(case, 50_000), 50_000, method="ach")

    worker.process(batch_id)

    (transaction,) = company.transactions(batch_id)
    assert transaction.status == "submitted"
    assert company.ledger(transaction_id) == []
    assert company.balance_cents(case.account_id) == 50_000
    assert company.request_status(transaction.disbursement_request_id) == "approved"
    assert company.batch_row(batch_id).status == "completed"


def test_attempt_is_committed_before_the_bank_sees_the_request(worker: Worker, company: Company) -> None:
    batch_id = company.batch([1_000])
    worker.process(batch_id)
    (transaction,) = company.transactions(batch_id)
    started = company.attempts(transaction.id)[0]
    seen = [request for request in worker.bank.control.requests() if request["reference"] == str(transaction.id)]
    assert started.outcome == "started"
    assert started.started_at <= datetime.fromisoformat(seen[0]["at"])


def test_batch_with_failed_and_sent_transfers_is_completed_with_errors(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=10_000)
    batch_id = company.batch([4_000], case=case)
    company.transaction(batch_id, company.request(case, 1_000), 1_000, routing_number="123456789")

    report = worker.process(batch_id)

    assert report.status == "completed_with_errors"
    assert company.statuses(batch_id) == ["completed", "failed"]
    assert company.batch_row(batch_id).error == "1 of its transfers did not go through."


@pytest.mark.parametrize(
    "mistake",
    [
        {"routing_number": "123456789"},
        {"account_number_encrypted": "not a token"},
        {"account_number": "12"},
        {"account_number": "4220000001"},
    ],
    ids=["routing number", "damaged token", "short account number", "refused by the bank"],
)
def test_batch_with_only_failures_fails_its_run_with_the_reasons(
    worker: Worker, company: Company, mistake: dict[str, str]
) -> None:
    case = company.case()
    batch_id = company.batch(case=case)
    transaction_id = company.transaction(batch_id, company.request(case, 100), 100, **mistake)

    with pytest.raises(AllTransfersFailed, match=f"batch {batch_id}.*transaction {transaction_id}: "):
        worker.process(batch_id)

    assert company.batch_row(batch_id).status == "failed"
    assert company.statuses(batch_id) == ["failed"]
    assert company.balance_cents(case.account_id) == 10_000_000


def test_batch_without_transactions_fails_with_that_reason(worker: Worker, company: Company) -> None:
    batch_id = company.batch()
    with pytest.raises(AllTransfersFailed, match="has no transactions"):
        worker.process(batch_id)


def test_unknown_batch_is_named_in_the_error(worker: Worker) -> None:
    with pytest.raises(UnknownBatch, match="no batch 4711"):
        worker.process(4711)


@pytest.mark.parametrize("status", ["draft", "held", "failed", "completed_with_errors"])
def test_batch_that_is_not_queued_is_rejected_and_unchanged(worker: Worker, company: Company, status: str) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    batch_id = company.batch([100], status=status, finished_at=yesterday)
    with pytest.raises(BatchNotQueued, match=f"Batch {batch_id} is '{status}'"):
        worker.process(batch_id)
    assert company.batch_row(batch_id).status == status
    assert company.statuses(batch_id) == ["pending"]


def test_second_run_of_a_completed_batch_succeeds_and_sends_nothing(worker: Worker, company: Company) -> None:
    batch_id = company.batch([100])
    worker.process(batch_id)
    report = worker.process(batch_id)
    assert report.status == "completed"
    assert worker.posts(company.transactions(batch_id)[0].id) == 1


def test_late_run_for_a_batch_that_another_run_finished_succeeds(worker: Worker, company: Company) -> None:
    requested_at = datetime.now(UTC)
    batch_id = company.batch([100])
    company.transaction(batch_id, None, 100)
    assert worker.process(batch_id).status == "completed_with_errors"
    assert worker.process(batch_id, requested_at=requested_at).status == "completed_with_errors"


def test_live_lease_keeps_other_workers_away_and_names_its_holder(worker: Worker, company: Company) -> None:
    batch_id = company.batch([100])
    with company.sessions.begin() as session:
        assert isinstance(acquire_lease(session, batch_id, "run-of-another", 60), Lease)
        session.execute(update(HuntingtonBatch).values(status="processing"))

    report = worker.process(batch_id)

    assert report.held_by == "run-of-another"
    assert worker.posts(company.transactions(batch_id)[0].id) == 0


def test_retrying_run_takes_over_its_own_lease(worker: Worker, company: Company) -> None:
    batch_id = company.batch([100])
    with company.sessions.begin() as session:
        acquire_lease(session, batch_id, worker.name, 60)
        session.execute(update(HuntingtonBatch).values(status="processing"))
    assert worker.process(batch_id).status == "completed"


def test_batch_with_an_expired_lease_is_taken_over(worker: Worker, company: Company) -> None:
    batch_id = company.batch([100])
    with company.sessions.begin() as session:
        acquire_lease(session, batch_id, "run-of-another", 0)
        session.execute(update(HuntingtonBatch).values(status="processing"))
    assert worker.process(batch_id).status == "completed"


def test_legacy_workers_batch_is_left_alone_until_the_grace_period_ends(worker: Worker, company: Company) -> None:
    batch_id = company.batch([100], status="processing", started_at=datetime.now(UTC))
    with pytest.raises(BatchNotQueued, match="holds no lease"):
        worker.process(batch_id)
    assert worker.process(batch_id, unknown_grace_seconds=0).status == "completed"


def test_requeued_batch_has_a_new_generation(worker: Worker, company: Company) -> None:
    batch_id = company.batch([100])

    def generation() -> int:
        with company.sessions() as session:
            return next(batch.generation for batch in list_queued_batches(session) if batch.batch_id == batch_id)

    first = generation()
    worker.process(batch_id)
    with company.sessions.begin() as session:
        session.execute(update(HuntingtonBatch).values(status="queued"))
    assert generation() != first


def test_requeued_batch_sends_only_pending_transactions(worker: Worker, company: Company) -> None:
    case = company.case()
    batch_id = company.batch([100], case=case)
    worker.process(batch_id)
    company.transaction(batch_id, company.request(case, 200), 200)
    with company.sessions.begin() as session:
        session.execute(update(HuntingtonBatch).values(status="queued"))

    assert worker.process(batch_id).status == "completed"

    first, second = company.transactions(batch_id)
    assert (worker.posts(first.id), worker.posts(second.id)) == (1, 1)


def test_queued_batches_are_sorted_by_priority_then_waiting_time(company: Company) -> None:
    now = datetime.now(UTC)
    late = company.batch([1], queued_at=now)
    early = company.batch([1], queued_at=now - timedelta(hours=1))
    urgent = company.batch([1], queued_at=now, priority=5)
    company.batch([1], status="held")
    with company.sessions() as session:
        assert [batch.batch_id for batch in list_queued_batches(session)] == [urgent, early, late]


def test_halt_by_environment_variable_stops_before_any_change(worker: Worker, company: Company) -> None:
    batch_id = company.batch([100])
    with pytest.raises(TransfersHalted, match="SEEDTRUST_TRANSFERS_HALTED"):
        worker.process(batch_id, halted_by_environment=True)
    assert company.batch_row(batch_id).status == "queued"
    assert company.statuses(batch_id) == ["pending"]


def test_halt_by_switch_names_who_and_why_and_resume_sends(worker: Worker, company: Company) -> None:
    batch_id = company.batch([100])
    with company.sessions.begin() as session:
        halt(session, "reconciling with Huntington", "Maria")
    with pytest.raises(TransfersHalted, match="by Maria: reconciling with Huntington"):
        worker.process(batch_id)
    with company.sessions.begin() as session:
        assert resume(session)
    assert worker.process(batch_id).status == "completed"


def test_wrong_field_key_stops_the_batch_and_changes_nothing(worker: Worker, company: Company) -> None:
    from cryptography.fernet import Fernet
    from pydantic import SecretStr

    batch_id = company.batch([100, 200])
    company.cipher = FernetFieldCipher([SecretStr(Fernet.generate_key().decode())])
    with pytest.raises(WrongFieldKey, match=f"batch {batch_id}"):
        worker.process(batch_id)
    assert company.batch_row(batch_id).status == "queued"
    assert company.statuses(batch_id) == ["pending", "pending"]


def test_damaged_token_fails_only_its_own_transaction(worker: Worker, company: Company) -> None:
    case = company.case()
    batch_id = company.batch([100], case=case)
    token = company.cipher.encrypt("123456789")
    company.transaction(
        batch_id, company.request(case, 100), 100, account_number_encrypted=token[:20] + "AAAA" + token[24:]
    )
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["completed", "failed"]
    assert "damaged" in (company.transactions(batch_id)[1].failure_reason or "")


def test_lease_row_is_kept_without_a_holder_after_the_batch(worker: Worker, company: Company) -> None:
    batch_id = company.batch([100])
    worker.process(batch_id)
    with company.sessions() as session:
        lease = session.get_one(BatchLease, batch_id)
    assert lease.token is None


def test_transactions_deleted_from_a_queued_batch_are_ignored(worker: Worker, company: Company) -> None:
    batch_id = company.batch([100, 200])
    with company.sessions.begin() as session:
        session.execute(delete(HuntingtonTransaction).where(HuntingtonTransaction.amount_cents == 200))
    assert worker.process(batch_id).counts == {"completed": 1}
