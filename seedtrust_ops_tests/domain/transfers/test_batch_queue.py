"""`queue_batch`: what may be queued is, in the caller's transaction; what may not is refused and left as it was."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import create_engine, text, update
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

from seedtrust_ops.client import BatchInQueue, BatchNotQueueable, UnknownBatch, queue_batch
from seedtrust_ops.domain.transfers.batch_claim import LARGEST_ID
from seedtrust_ops.domain.transfers.batch_lifecycle import queued_batches
from seedtrust_ops.tables import HuntingtonBatch, HuntingtonTransaction
from seedtrust_ops_tests.domain.transfers.transfer_worker import LONG_AGO, Worker
from seedtrust_ops_tests.support.factories import Company

PENDING = [1_000, 2_500]


def columns_of(company: Company, batch_id: int) -> dict[str, Any]:
    row = company.batch_row(batch_id)
    return {column.name: getattr(row, column.name) for column in HuntingtonBatch.__table__.columns}


def queued(company: Company, batch_id: int) -> BatchInQueue:
    with company.sessions.begin() as session:
        return queue_batch(session, batch_id)


@pytest.mark.parametrize(
    "before",
    [
        {"status": "draft", "queued_at": None},
        {"status": "held", "queued_at": LONG_AGO},
        {"status": "failed", "queued_at": LONG_AGO, "started_at": LONG_AGO, "finished_at": LONG_AGO, "error": "died"},
    ],
    ids=lambda before: before["status"],
)
def test_a_batch_that_waits_for_a_person_is_queued_by_one(company: Company, before: dict[str, Any]) -> None:
    batch_id = company.batch(PENDING, **before)
    asked_at = datetime.now(UTC)
    told = queued(company, batch_id)
    row = company.batch_row(batch_id)
    assert (row.status, row.error, row.finished_at) == ("queued", None, None)
    assert row.started_at == before.get("started_at")
    assert (told.batch_id, told.transactions, told.amount_cents, told.queued_at) == (batch_id, 2, 3_500, row.queued_at)
    assert abs(told.queued_at - asked_at) < timedelta(minutes=5)
    with company.sessions() as session:
        assert [one.batch_id for one in queued_batches(session)] == [batch_id]


@pytest.mark.parametrize("status", ["processing", "completed", "completed_with_errors"])
def test_a_batch_that_the_bank_has_is_refused(company: Company, status: str) -> None:
    batch_id = company.batch(PENDING, status=status)
    before = columns_of(company, batch_id)
    with pytest.raises(BatchNotQueueable, match=f"Batch {batch_id} was not queued") as refused:
        queued(company, batch_id)
    assert (refused.value.batch_id, refused.value.status) == (batch_id, status)
    assert columns_of(company, batch_id) == before


@pytest.mark.parametrize("status", ["draft", "held", "failed"])
@pytest.mark.parametrize("transactions", [[], ["failed", "completed"]], ids=["none", "all settled"])
def test_a_batch_with_nothing_to_send_is_refused(company: Company, status: str, transactions: list[str]) -> None:
    batch_id = company.batch([1_000 for _ in transactions], status=status)
    with company.sessions.begin() as session:
        for transaction, settled in zip(company.transactions(batch_id), transactions, strict=True):
            session.execute(
                update(HuntingtonTransaction).where(HuntingtonTransaction.id == transaction.id).values(status=settled)
            )
    before = columns_of(company, batch_id)
    with pytest.raises(BatchNotQueueable, match="nothing to send"):
        queued(company, batch_id)
    assert columns_of(company, batch_id) == before


@pytest.mark.parametrize("batch_id", [-1, 0, 999, LARGEST_ID, LARGEST_ID + 1])
def test_a_batch_that_there_is_none_of_is_named(company: Company, batch_id: int) -> None:
    with pytest.raises(UnknownBatch, match=f"no batch {batch_id}"):
        queued(company, batch_id)


def test_a_second_click_changes_nothing(company: Company) -> None:
    batch_id = company.batch(PENDING, status="draft", queued_at=None)
    first = queued(company, batch_id)
    before = columns_of(company, batch_id)
    assert queued(company, batch_id) == first
    assert columns_of(company, batch_id) == before


def test_it_is_the_callers_transaction_that_queues(company: Company) -> None:
    batch_id = company.batch(PENDING, status="draft", queued_at=None)
    with company.sessions() as session:
        queue_batch(session, batch_id)
        assert company.batch_row(batch_id).status == "draft"
        session.rollback()
    assert company.batch_row(batch_id).status == "draft"


def test_what_was_queued_is_sent_and_what_the_legacy_worker_gave_up_is_asked_about_first(
    company: Company, worker: Worker
) -> None:
    draft = company.batch(PENDING, status="draft", queued_at=None)
    given_up = company.batch(PENDING, status="failed", queued_at=LONG_AGO, started_at=LONG_AGO)
    for batch_id in (draft, given_up):
        queued(company, batch_id)
        worker.process(batch_id)
    assert company.statuses(draft) == ["completed"] * 2
    # Nobody knows what that worker had sent: none is sent before the bank was asked.
    assert company.statuses(given_up) == ["processing"] * 2


def test_the_platforms_own_role_needs_no_right_in_our_schema(company: Company, database_url: URL) -> None:
    batch_id = company.batch(PENDING, status="draft", queued_at=None)
    engine = create_engine(database_url)
    with engine.begin() as superuser:
        superuser.execute(text("drop role if exists platform_application"))
        superuser.execute(text("create role platform_application"))
        superuser.execute(
            text("grant select, update on huntington_batches, huntington_transactions to platform_application")
        )
        superuser.execute(text("set local role platform_application"))
        queue_batch(Session(superuser), batch_id)
    with engine.begin() as superuser:
        superuser.execute(text("drop owned by platform_application"))
        superuser.execute(text("drop role platform_application"))
    engine.dispose()
    assert company.batch_row(batch_id).status == "queued"
