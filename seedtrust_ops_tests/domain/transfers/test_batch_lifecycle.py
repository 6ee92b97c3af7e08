"""`queue_batch` queues a batch in the caller's transaction, or rejects it and leaves it unchanged."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import create_engine, text, update
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

from seedtrust_ops.client import BatchInQueue, BatchNotQueueable, UnknownBatch, queue_batch
from seedtrust_ops.domain.transfers.batch_lifecycle import MAX_ID, list_queued_batches
from seedtrust_ops.tables import HuntingtonBatch, HuntingtonTransaction
from seedtrust_ops_tests.domain.transfers.transfer_worker import LONG_AGO, Worker
from seedtrust_ops_tests.support.factories import Company

PENDING = [1_000, 2_500]


def columns_of(company: Company, batch_id: int) -> dict[str, Any]:
    row = company.batch_row(batch_id)
    return {column.name: getattr(row, column.name) for column in HuntingtonBatch.__table__.columns}


def queue(company: Company, batch_id: int) -> BatchInQueue:
    with company.sessions.begin() as session:
        return queue_batch(session, batch_id)


@pytest.mark.parametrize(
    "before",
    [
        {"status": "draft", "queued_at": None},
        {"status": "held", "queued_at": LONG_AGO},
        {
            "status": "failed",
            "queued_at": LONG_AGO,
            "started_at": LONG_AGO,
            "finished_at": LONG_AGO,
            "error": "crashed",
        },
    ],
    ids=lambda before: before["status"],
)
def test_batch_in_a_queueable_status_is_queued(company: Company, before: dict[str, Any]) -> None:
    batch_id = company.batch(PENDING, **before)
    requested_at = datetime.now(UTC)
    result = queue(company, batch_id)
    row = company.batch_row(batch_id)
    assert (row.status, row.error, row.finished_at) == ("queued", None, None)
    assert row.started_at == before.get("started_at")
    assert (result.batch_id, result.transactions, result.amount_cents) == (batch_id, 2, 3_500)
    assert result.queued_at == row.queued_at
    assert abs(result.queued_at - requested_at) < timedelta(minutes=5)
    with company.sessions() as session:
        assert [batch.batch_id for batch in list_queued_batches(session)] == [batch_id]


@pytest.mark.parametrize("status", ["processing", "completed", "completed_with_errors"])
def test_batch_already_at_the_bank_is_rejected(company: Company, status: str) -> None:
    batch_id = company.batch(PENDING, status=status)
    before = columns_of(company, batch_id)
    with pytest.raises(BatchNotQueueable, match=f"Batch {batch_id} was not queued") as refused:
        queue(company, batch_id)
    assert (refused.value.batch_id, refused.value.status) == (batch_id, status)
    assert columns_of(company, batch_id) == before


@pytest.mark.parametrize("status", ["draft", "held", "failed"])
@pytest.mark.parametrize("transactions", [[], ["failed", "completed"]], ids=["none", "all settled"])
def test_batch_with_nothing_to_send_is_rejected(company: Company, status: str, transactions: list[str]) -> None:
    batch_id = company.batch([1_000 for _ in transactions], status=status)
    with company.sessions.begin() as session:
        for transaction, settled in zip(company.transactions(batch_id), transactions, strict=True):
            session.execute(
                update(HuntingtonTransaction).where(HuntingtonTransaction.id == transaction.id).values(status=settled)
            )
    before = columns_of(company, batch_id)
    with pytest.raises(BatchNotQueueable, match="nothing to send"):
        queue(company, batch_id)
    assert columns_of(company, batch_id) == before


@pytest.mark.parametrize("batch_id", [-1, 0, 999, MAX_ID, MAX_ID + 1])
def test_missing_batch_is_named_in_the_error(company: Company, batch_id: int) -> None:
    with pytest.raises(UnknownBatch, match=f"no batch {batch_id}"):
        queue(company, batch_id)


def test_second_queue_request_changes_nothing(company: Company) -> None:
    batch_id = company.batch(PENDING, status="draft", queued_at=None)
    first = queue(company, batch_id)
    before = columns_of(company, batch_id)
    assert queue(company, batch_id) == first
    assert columns_of(company, batch_id) == before


def test_queueing_happens_in_the_callers_transaction(company: Company) -> None:
    batch_id = company.batch(PENDING, status="draft", queued_at=None)
    with company.sessions() as session:
        queue_batch(session, batch_id)
        assert company.batch_row(batch_id).status == "draft"
        session.rollback()
    assert company.batch_row(batch_id).status == "draft"


def test_legacy_batch_queued_by_a_person_is_looked_up_before_sending(company: Company, worker: Worker) -> None:
    draft = company.batch(PENDING, status="draft", queued_at=None)
    abandoned = company.batch(PENDING, status="failed", queued_at=LONG_AGO, started_at=LONG_AGO)
    for batch_id in (draft, abandoned):
        queue(company, batch_id)
        worker.process(batch_id)
    assert company.statuses(draft) == ["completed"] * 2
    # It is unknown what the legacy worker had sent, so the bank is asked before anything is sent.
    assert company.statuses(abandoned) == ["processing"] * 2


def test_platform_role_needs_no_grants_on_schema_ops(company: Company, database_url: URL) -> None:
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
