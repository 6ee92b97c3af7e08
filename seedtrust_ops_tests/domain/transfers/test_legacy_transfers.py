"""What the legacy worker left behind is matched by reference and amount, or a person is asked; nothing is guessed."""

from datetime import UTC, datetime

import pytest

from seedtrust_ops_tests.building import BuiltCase, Company
from seedtrust_ops_tests.domain.transfers.working import LONG_AGO, Worker


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


def test_legacy_batch_queued_again_by_hand_is_asked_about_before_it_is_sent(worker: Worker, company: Company) -> None:
    case = company.case()
    batch_id = company.batch(case=case, status="queued", started_at=LONG_AGO)
    sent = company.transaction(batch_id, company.request(case, 300), 300, updated_at=LONG_AGO)
    worker.bank.control.plant_transfer(reference=str(sent), amount_cents=300)
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["completed"]
    assert worker.posts(sent) == 0
