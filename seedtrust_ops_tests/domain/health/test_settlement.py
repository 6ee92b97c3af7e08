"""Overdue settlements: by what the bank accepted and has not settled, one alert for each batch, gone by themselves."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, func, insert, literal, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.health.rule import MAX_SEPARATE_FINDINGS
from seedtrust_ops.domain.health.settlement import MAX_LISTED, settlement_overdue
from seedtrust_ops.domain.transfers.evidence import ensure_evidence
from seedtrust_ops.domain.transfers.settlement_deadlines import EASTERN
from seedtrust_ops.tables import HuntingtonTransaction, TransferAttempt, TransferEvidence
from seedtrust_ops_tests.support.factories import Company

NOW = datetime(2026, 12, 2, 12, 0, tzinfo=EASTERN)
"""A Wednesday, at noon. An ACH is overdue if the bank accepted it up to Wednesday, November 25, at 17:00."""
ACCEPTED = {"state": "in_flight", "bank_status": "accepted"}


def eastern(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=EASTERN)


def plant(
    company: Company, created_at: str | None, *, method: str = "ach", status: str = "submitted", **columns: Any
) -> int:
    """Plant a transfer that the bank accepted at `created_at`; return its batch."""
    case = company.case()
    batch_id = company.batch(case=case, status="completed")
    transaction_id = company.transaction(batch_id, company.request(case, 500), 500, method=method, status=status)
    with company.sessions.begin() as session:
        ensure_evidence(session, [transaction_id])
        session.execute(
            update(TransferEvidence)
            .where(TransferEvidence.transaction_id == transaction_id)
            .values(**(ACCEPTED | {"bank_created_at": created_at and eastern(created_at)} | columns))
        )
    return batch_id


def overdue(sessions: sessionmaker[Session], now: datetime = NOW) -> list[Finding]:
    with sessions() as session:
        return settlement_overdue(session, now=now)


@pytest.mark.parametrize(
    ("method", "created_at", "is_overdue"),
    [
        ("ach", "2026-11-25 17:00", True),
        ("ach", "2026-11-25 17:01", False),
        ("ach", "2026-10-03 12:00", True),
        ("wire", "2026-12-02 11:00", True),
        ("wire", "2026-12-02 11:01", False),
        ("wire", "2026-12-01 18:00", True),
    ],
)
def test_transfer_is_overdue_after_its_deadline(
    company: Company, sessions: sessionmaker[Session], method: str, created_at: str, is_overdue: bool
) -> None:
    batch_id = plant(company, created_at, method=method)
    found = overdue(sessions)
    assert [(one.subject, one.severity) for one in found] == ([(f"batch {batch_id}", "HIGH")] if is_overdue else [])


@pytest.mark.parametrize("status", ["submitted", "failed", "completed", "pending", "processing", "returned"])
def test_overdue_transfer_is_found_whatever_status_people_wrote(
    company: Company, sessions: sessionmaker[Session], status: str
) -> None:
    plant(company, "2026-10-03 12:00", status=status)
    assert len(overdue(sessions)) == 1


@pytest.mark.parametrize(
    ("columns", "is_overdue"),
    [
        ({"state": "moved", "bank_status": "completed"}, False),
        ({"state": "not_moved", "bank_status": "returned"}, False),
        ({"state": "not_moved", "bank_status": "rejected"}, False),
        ({"state": "not_moved", "settled_as": "failed"}, False),
        ({"state": "moved", "settled_as": "completed"}, False),
        # Not settled, whatever else is wrong with it.
        ({"missing_since": eastern("2026-11-01 12:00")}, True),
        ({"unknown_to_bank_at": eastern("2026-11-01 12:00")}, True),
    ],
)
def test_overdue_ends_with_an_outcome_or_a_settlement(
    company: Company, sessions: sessionmaker[Session], columns: dict[str, Any], is_overdue: bool
) -> None:
    plant(company, "2026-10-03 12:00", **columns)
    assert bool(overdue(sessions)) is is_overdue


def test_overdue_transfers_of_a_batch_are_one_alert_that_lists_them(
    company: Company, sessions: sessionmaker[Session]
) -> None:
    batch_id = company.big_batch(MAX_LISTED + 3, 1_234_500, method="ach", status="completed")
    ids = [one.id for one in company.transactions(batch_id)]
    with sessions.begin() as session:
        ensure_evidence(session, ids)
        first = select(func.min(TransferEvidence.transaction_id)).scalar_subquery()
        age = (TransferEvidence.transaction_id - first) * text("interval '1 minute'")
        created_at = literal(eastern("2026-11-24 10:12")) - age
        session.execute(update(TransferEvidence).values(**ACCEPTED, bank_created_at=created_at))
        session.execute(
            update(TransferEvidence).where(TransferEvidence.transaction_id == ids[0]).values(bank_created_at=NOW)
        )
    (finding,) = overdue(sessions)
    assert finding.subject == f"batch {batch_id}"
    assert f"in time {MAX_LISTED + 2} transfers of batch {batch_id}: transaction {ids[-1]}, ACH of" in finding.detail
    assert (
        f"transaction {ids[-2]}, ACH of $12,345.00, accepted 2026-11-24 09:51 Eastern, due 2026-11-30" in finding.detail
    )
    assert f"transaction {ids[0]}," not in finding.detail
    assert "; and 2 more. Ask Huntington" in finding.detail


def test_overdue_transfer_of_a_deleted_transaction_is_found(company: Company, sessions: sessionmaker[Session]) -> None:
    plant(company, "2026-10-03 12:00")
    with sessions.begin() as session:
        session.execute(delete(HuntingtonTransaction))
    assert [one.subject for one in overdue(sessions)] == ["deleted transactions"]


def test_overdue_batches_beyond_the_limit_are_counted_in_one_alert(
    company: Company, sessions: sessionmaker[Session]
) -> None:
    for _ in range(MAX_SEPARATE_FINDINGS + 2):
        plant(company, "2026-10-03 12:00")
    found = overdue(sessions)
    assert len(found) == MAX_SEPARATE_FINDINGS + 1
    assert found[-1].detail.startswith("2 more have the same problem as batch ")


@pytest.mark.parametrize(("started_days_ago", "is_overdue"), [(30, True), (0, False)])
@pytest.mark.parametrize("kind", ["attempt", "batch", "no evidence"])
def test_acceptance_at_an_unknown_time_is_estimated_by_our_own(
    company: Company, sessions: sessionmaker[Session], kind: str, started_days_ago: int, is_overdue: bool
) -> None:
    batch_id = plant(company, None)
    started_at = datetime.now(EASTERN) - timedelta(days=started_days_ago)
    (transaction,) = company.transactions(batch_id)
    with sessions.begin() as session:
        session.execute(
            text("update huntington_batches set started_at = :at"), {"at": started_at if kind != "attempt" else None}
        )
        if kind == "attempt":
            attempts = [
                {"attempt": 0, "outcome": "accepted", "started_at": eastern("2026-01-01 12:00")},
                {"attempt": 1, "outcome": "started", "started_at": started_at},
                {"attempt": 2, "outcome": "started", "started_at": datetime.now(EASTERN)},
            ]
            keys = {"transaction_id": transaction.id, "idempotency_key": "a key"}
            session.execute(insert(TransferAttempt), [keys | one for one in attempts])
        if kind == "no evidence":
            session.execute(delete(TransferEvidence))
    found = overdue(sessions, datetime.now(EASTERN))
    assert [one.subject for one in found] == ([f"batch {batch_id}"] if is_overdue else [])
    assert not found or f"accepted about {started_at:%Y-%m-%d %H:%M}" in found[0].detail


@pytest.mark.parametrize("moment", ["infinity", "-infinity", "20260-01-01", "4000-01-01 BC"])
def test_overdue_is_found_beside_times_that_people_mistyped(
    company: Company, sessions: sessionmaker[Session], moment: str
) -> None:
    batch_id = plant(company, None)
    with sessions.begin() as session:
        session.execute(text("update huntington_batches set created_at = now() - interval '60 days'"))
        session.execute(text("update huntington_batches set started_at = :at, queued_at = :at"), {"at": moment})
    assert [one.subject for one in overdue(sessions, datetime.now(EASTERN))] == [f"batch {batch_id}"]
