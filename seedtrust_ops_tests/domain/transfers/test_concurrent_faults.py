"""Many transfers under random faults: afterwards SeedTrust and the bank agree to the cent."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from seedtrust_ops.domain.transfers.sender import BankNotResponding, BankUnreachable
from seedtrust_ops.domain.transfers.settlement import SettleAs
from seedtrust_ops.ports.bank import BankInquiryFailed
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker, settings_for, settle_by_hand
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.tiers import long_version

SEED = 20_261_124
FEWEST_TRANSACTIONS = 250
"""So few that every kind of fault still happens."""
TRANSACTIONS = 1_000
FEWER = "domain/transfers/test_concurrent_faults.py::test_transfers_under_random_faults_are_paid_once_or_refused"
FAULTS = {
    "reset_before_commit": 0.08,
    "reset_after_commit": 0.08,
    "error_before_commit": 0.08,
    "error_after_commit": 0.08,
    "garbage": 0.08,
    "rate_limited": 0.01,
    "refuse": 0.05,
    "late_response_after_commit": 0.02,
    "late_response_before_commit": 0.02,
}
ROUNDS = 30


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "transactions", [FEWEST_TRANSACTIONS, pytest.param(TRANSACTIONS, marks=long_version(of=FEWER))]
)
def test_transfers_under_random_faults_are_paid_once_or_refused(
    worker: Worker, company: Company, transactions: int
) -> None:
    batch_id = company.big_batch(transactions)
    worker.options = replace(worker.options, concurrency=16, unknown_grace_seconds=0)
    worker.settings = settings_for(worker.bank, HUNTINGTON_TIMEOUT_SECONDS=1)
    worker.bank.control.start_chaos(SEED, FAULTS, seconds=1.5, code="invalid_account")

    for _ in range(ROUNDS):
        if company.batch_row(batch_id).status == "queued":
            try:
                worker.process(batch_id, requested_at=datetime.now(UTC))
            except (BankNotResponding, BankUnreachable, BankInquiryFailed):
                # In production the run would be retried. On a busy machine a second looks like a bank outage.
                continue
        try:
            worker.heal(grace_seconds=0)
        except BankInquiryFailed:
            continue
        if company.batch_row(batch_id).finished_at is not None:
            break

    applied_kinds = {fault["kind"] for fault in worker.bank.control.faults()["applied"]}
    worker.bank.control.clear_faults()
    worker.settings = settings_for(worker.bank)
    worker.heal()
    # By chance all five attempts of a transfer draw errors, and the bank booked none. Such a transfer ends by hand.
    for subject in [subject for rule, subject in company.open_alerts() if rule == "transfer_undeliverable"]:
        settle_by_hand(worker, int(subject.removeprefix("transaction ")), SettleAs.FAILED)
    worker.heal()
    transactions = company.transactions(batch_id)
    at_bank = worker.bank_transfers([transaction.id for transaction in transactions])
    assert {transaction.status for transaction in transactions} == {"completed", "failed"}
    for transaction in transactions:
        assert (transaction.status == "completed") == (transaction.id in at_bank), transaction.id
        assert company.ledger(transaction.id) == (
            [("disbursement", -transaction.amount_cents)] if transaction.id in at_bank else []
        )
    assert worker.paid_more_than_once([transaction.id for transaction in transactions]) == []
    assert company.unbalanced_accounts() == []
    assert company.batch_row(batch_id).status == "completed_with_errors"
    assert applied_kinds == set(FAULTS)
