"""What the bank reports and no transaction explains is a row and an alert, until something explains it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, select, update

from seedtrust_ops.domain.transfers.attempts import idempotency_key
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.tables import (
    Alert,
    BankFeedCursor,
    Cutover,
    HuntingtonBatch,
    HuntingtonTransaction,
    LedgerEntry,
    UnknownTransfer,
)
from seedtrust_ops_tests.domain.transfers.transfer_worker import LONG_AGO, Worker
from seedtrust_ops_tests.support.factories import Company

NO_SUCH_TRANSACTION = 987_654_321_012
Plant = Callable[[Worker, Company], str]


def foreign_reference(worker: Worker, company: Company) -> str:
    return worker.bank.control.add_unknown_transfer()["id"]


def number_of_no_transaction(worker: Worker, company: Company) -> str:
    return worker.bank.control.add_unknown_transfer(str(NO_SUCH_TRANSACTION))["id"]


def key_of_no_transaction(worker: Worker, company: Company) -> str:
    return insert(worker, NO_SUCH_TRANSACTION, idempotency_key(NO_SUCH_TRANSACTION))


def deleted_without_evidence(worker: Worker, company: Company) -> str:
    (transaction,) = company.transactions(company.batch([5_000]))
    bank_id = insert(worker, transaction.id, idempotency_key(transaction.id))
    remove(company, transaction.id)
    return bank_id


def deleted_after_it_was_sent(worker: Worker, company: Company) -> str:
    _, transaction_id = worker.submit_ach(company.case())
    remove(company, transaction_id)
    return worker.bank_transfers([transaction_id])[transaction_id]["id"]


def second_with_our_reference(worker: Worker, company: Company) -> str:
    batch_id = company.batch([5_000])
    worker.process(batch_id)
    return insert(worker, company.transactions(batch_id)[0].id, None)


def second_under_our_key(worker: Worker, company: Company) -> str:
    batch_id = company.batch([5_000])
    worker.process(batch_id)
    transaction_id = company.transactions(batch_id)[0].id
    worker.bank.control.forget_key(idempotency_key(transaction_id))
    return insert(worker, transaction_id, idempotency_key(transaction_id))


def reference_of_an_unsent_transaction(worker: Worker, company: Company) -> str:
    (transaction,) = company.transactions(company.batch([5_000], status="draft"))
    return insert(worker, transaction.id, None)


def another_amount_for_a_legacy_transaction(worker: Worker, company: Company) -> str:
    return insert(worker, legacy_transaction(company), None, cents=5_001)


def one_of_two_for_a_legacy_transaction(worker: Worker, company: Company) -> str:
    transaction_id = legacy_transaction(company)
    insert(worker, transaction_id, None)
    return insert(worker, transaction_id, None)


def begun_by_the_legacy_worker_after_cutover(worker: Worker, company: Company) -> str:
    return insert(worker, legacy_transaction(company, begun_at=datetime.now(UTC)), None)


KINDS: dict[Plant, str] = {
    foreign_reference: "its reference is no transaction's number",
    number_of_no_transaction: "its reference is no transaction's number",
    key_of_no_transaction: "its reference is no transaction's number",
    deleted_without_evidence: "its reference is no transaction's number",
    deleted_after_it_was_sent: "was deleted after it was sent",
    second_with_our_reference: "it is a second transfer with the reference of transaction",
    second_under_our_key: "it is a second transfer under the key of transaction",
    reference_of_an_unsent_transaction: "which we have not sent",
    another_amount_for_a_legacy_transaction: "which is for $50.00",
    one_of_two_for_a_legacy_transaction: "it is one of several transfers",
    begun_by_the_legacy_worker_after_cutover: "which we have not sent",
}


def insert(worker: Worker, reference: int, key: str | None, *, cents: int = 5_000) -> str:
    return worker.bank.control.insert_transfer(
        reference=str(reference), amount_cents=cents, idempotency_key=key, method="wire"
    )["id"]


def remove(company: Company, transaction_id: int) -> None:
    with company.sessions.begin() as session:
        session.execute(delete(LedgerEntry).where(LedgerEntry.huntington_transaction_id == transaction_id))
        session.execute(delete(HuntingtonTransaction).where(HuntingtonTransaction.id == transaction_id))


def legacy_transaction(company: Company, *, begun_at: datetime = LONG_AGO) -> int:
    """A transaction that the legacy worker has begun and not finished."""
    batch_id = company.batch(status="failed", started_at=begun_at, created_at=begun_at)
    request_id = company.request(company.case(), 5_000)
    return company.transaction(
        batch_id, request_id, 5_000, status="failed", failure_reason="account closed", updated_at=begun_at
    )


def unknown(company: Company) -> dict[str, UnknownTransfer]:
    with company.sessions() as session:
        return {one.bank_transfer_id: one for one in session.scalars(select(UnknownTransfer))}


def alert_about(company: Company, bank_id: str) -> Alert | None:
    with company.sessions() as session:
        return session.scalars(
            select(Alert).where(
                Alert.rule == "unknown_transfer",
                Alert.subject == f"bank transfer {bank_id}",
                Alert.resolved_at.is_(None),
            )
        ).one_or_none()


@pytest.mark.parametrize("plant", KINDS, ids=lambda plant: plant.__name__.replace("_", " "))
def test_unexplained_transfer_is_a_row_and_opens_an_alert(worker: Worker, company: Company, plant: Plant) -> None:
    bank_id = plant(worker, company)
    worker.heal()
    worker.heal()
    row, alert = unknown(company)[bank_id], alert_about(company, bank_id)
    assert row.explained_at is None
    assert KINDS[plant] in row.problem
    assert alert is not None
    assert (alert.severity, alert.occurrences) == ("CRITICAL", 1)
    assert row.problem in alert.detail
    assert bank_id in alert.detail


def test_rejected_unknown_transfer_is_high_and_rises_with_its_status(worker: Worker, company: Company) -> None:
    bank_id = worker.bank.control.add_unknown_transfer(status="rejected")["id"]
    worker.heal()
    alert = alert_about(company, bank_id)
    assert alert is not None
    assert alert.severity == "HIGH"


def test_unknown_transfer_follows_the_banks_newest_status(worker: Worker, company: Company) -> None:
    bank_id = worker.bank.control.add_unknown_transfer(status="accepted", method="ach")["id"]
    worker.heal()
    first = unknown(company)[bank_id]
    worker.bank.control.settle()
    worker.heal()
    row, alert = unknown(company)[bank_id], alert_about(company, bank_id)
    assert (first.status, row.status) == ("accepted", "completed")
    assert row.updated_at > first.updated_at
    assert alert is not None
    assert alert.occurrences == 2
    assert "completed" in alert.detail


def test_explained_transfers_are_never_unknown(worker: Worker, company: Company) -> None:
    case = company.case()
    worker.submit_ach(case)
    worker.process(company.batch([5_000, 6_000]))
    legacy = legacy_transaction(company)
    insert(worker, legacy, None)
    worker.heal()
    worker.heal()
    assert unknown(company) == {}
    assert company.open_alerts() == []


def test_thousand_unknown_transfers_are_one_alert_and_stop_nobody(worker: Worker, company: Company) -> None:
    batch_id, _ = worker.submit_ach(company.case())
    for _ in range(1_000):
        worker.bank.control.add_unknown_transfer()
    worker.bank.control.settle()
    started = datetime.now(UTC)
    worker.heal()
    assert datetime.now(UTC) - started < timedelta(minutes=1)
    assert company.statuses(batch_id) == ["completed"]
    assert company.open_alerts() == [("unknown_transfer", "unknown transfers")]
    assert len(unknown(company)) == 1_000
    with company.sessions() as session:
        read_up_to = session.scalars(select(BankFeedCursor.read_up_to)).one()
        assert "and 900 more" in session.scalars(select(Alert.detail)).one()
    assert read_up_to > started - timedelta(minutes=1)


def test_transaction_that_appears_later_explains_its_transfer(worker: Worker, company: Company) -> None:
    batch_id = company.batch([5_000])
    (transaction,) = company.transactions(batch_id)
    columns = {c.name: getattr(transaction, c.name) for c in HuntingtonTransaction.__table__.columns}
    bank_id = insert(worker, transaction.id, idempotency_key(transaction.id))
    remove(company, transaction.id)
    worker.heal()
    assert alert_about(company, bank_id) is not None
    with company.sessions.begin() as session:
        session.add(HuntingtonTransaction(**columns))
    worker.heal()
    row = unknown(company)[bank_id]
    assert (row.transaction_id, row.explained_by) == (transaction.id, None)
    assert row.explained_at is not None
    assert company.open_alerts() == []
    assert company.statuses(batch_id) == ["completed"]


def test_transfer_whose_explaining_row_is_deleted_alerts_again(worker: Worker, company: Company) -> None:
    bank_id = deleted_without_evidence(worker, company)
    worker.heal()
    with company.sessions.begin() as session:
        session.execute(update(UnknownTransfer).values(explained_at=datetime.now(UTC), transaction_id=1))
        session.execute(update(Alert).values(resolved_at=datetime.now(UTC)))
    worker.heal()
    assert alert_about(company, bank_id) is not None


def test_reference_matches_everything_before_the_cutover(worker: Worker, company: Company) -> None:
    with company.sessions.begin() as session:
        session.execute(delete(Cutover))
    transaction_id = legacy_transaction(company, begun_at=datetime.now(UTC))
    insert(worker, transaction_id, None)
    worker.heal()
    assert unknown(company) == {}
    assert company.ledger(transaction_id) == [("disbursement", -5_000)]


def test_transfer_begun_after_cutover_is_neither_matched_nor_resent(worker: Worker, company: Company) -> None:
    batch_id = company.batch([5_000], status="processing")
    (transaction,) = company.transactions(batch_id)
    with company.sessions.begin() as session:
        session.execute(update(HuntingtonBatch).values(started_at=datetime.now(UTC), created_at=LONG_AGO))
        session.execute(update(HuntingtonTransaction).values(status="processing", updated_at=datetime.now(UTC)))
    bank_id = insert(worker, transaction.id, None)
    worker.heal()
    worker.heal()
    assert company.statuses(batch_id) == ["processing"]
    assert worker.posts(transaction.id) == 0
    assert company.open_alerts() == [
        ("transfer_ambiguous", f"transaction {transaction.id}"),
        ("unknown_transfer", f"bank transfer {bank_id}"),
    ]


def test_bank_fixture_starts_with_empty_books(bank: BankProcess) -> None:
    assert bank.control.ledger()["transfers"] == []
