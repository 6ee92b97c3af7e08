"""Stuck and held batches and halted transfers, each just below and just above its threshold."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.health.batches import batch_held, batch_stuck, transfers_halted
from seedtrust_ops.domain.health.rule import MAX_SEPARATE_FINDINGS
from seedtrust_ops.domain.health.unknown_transfers import unknown_transfer
from seedtrust_ops.domain.transfers.kill_switch import halt
from seedtrust_ops.tables import Alert, BatchLease, UnknownTransfer
from seedtrust_ops_tests.support.factories import Company


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def stuck(sessions: sessionmaker[Session], *, halted: bool = False) -> list[str]:
    with sessions() as session:
        found = batch_stuck(
            session,
            queued_seconds=900,
            processing_seconds=300,
            transaction_seconds=3600,
            halted_by_environment=halted,
        )
        return [finding.subject for finding in found]


@pytest.mark.parametrize(
    ("columns", "lease", "is_stuck"),
    [
        ({"status": "queued", "queued_at": 700}, None, False),
        ({"status": "queued", "queued_at": 920}, None, True),
        ({"status": "held", "queued_at": ago(90_000)}, None, False),
        ({"status": "draft", "queued_at": None}, None, False),
        ({"status": "completed", "queued_at": ago(90_000)}, None, False),
        ({"status": "processing", "started_at": 150}, None, False),
        ({"status": "processing", "started_at": 320}, None, True),
        # A worker holds the lease, however long that takes.
        ({"status": "processing", "started_at": ago(90_000)}, ("token", -300), False),
        # The lease has expired or was released.
        ({"status": "processing", "started_at": ago(90_000)}, ("token", 150), False),
        ({"status": "processing", "started_at": ago(90_000)}, ("token", 320), True),
        ({"status": "processing", "started_at": ago(90_000)}, (None, 320), True),
    ],
)
def test_batch_is_stuck_after_waiting_or_lacking_a_lease_too_long(
    company: Company,
    sessions: sessionmaker[Session],
    columns: dict[str, Any],
    lease: tuple[str | None, float] | None,
    is_stuck: bool,
) -> None:
    times = {name: ago(value) for name, value in columns.items() if isinstance(value, int)}
    batch_id = company.batch([500], **(columns | times))
    if lease is not None:
        with sessions.begin() as session:
            session.add(BatchLease(batch_id=batch_id, token=lease[0], holder="a run", expires_at=ago(lease[1])))
    assert stuck(sessions) == ([f"batch {batch_id}"] if is_stuck else [])


@pytest.mark.parametrize(
    ("status", "seconds", "is_stuck"),
    [("processing", 3000, False), ("processing", 3620, True), ("submitted", 900_000, False)],
)
def test_transactions_with_unknown_outcome_too_long_are_stuck(
    company: Company, sessions: sessionmaker[Session], status: str, seconds: float, is_stuck: bool
) -> None:
    case = company.case()
    batch_id = company.batch(case=case, status="completed")
    for _ in range(2):
        company.transaction(batch_id, company.request(case, 500), 500, status=status, updated_at=ago(seconds))
    assert stuck(sessions) == ([f"transactions of batch {batch_id}"] if is_stuck else [])


def test_stuck_batches_beyond_the_limit_are_counted_in_one_alert(
    company: Company, sessions: sessionmaker[Session]
) -> None:
    batches = [company.batch(queued_at=ago(1000)) for _ in range(MAX_SEPARATE_FINDINGS + 3)]
    subjects = stuck(sessions)
    assert subjects == [*(f"batch {batch_id}" for batch_id in batches[:MAX_SEPARATE_FINDINGS]), "batch: others"]


def test_halted_transfers_alert_instead_of_queued_batches(company: Company, sessions: sessionmaker[Session]) -> None:
    company.batch([500], queued_at=ago(5000))
    with sessions() as session:
        assert transfers_halted(session, halted_by_environment=False) == []
        (by_environment,) = transfers_halted(session, halted_by_environment=True)
    assert by_environment.detail.startswith("Transfers are halted: SEEDTRUST_TRANSFERS_HALTED is set.")
    assert stuck(sessions, halted=True) == []
    assert len(stuck(sessions)) == 1
    with sessions.begin() as session:
        halt(session, "bank migration", set_by="Maria")
    with sessions() as session:
        (finding,) = transfers_halted(session, halted_by_environment=False)
    assert "by Maria: bank migration." in finding.detail
    assert stuck(sessions) == []


def held(sessions: sessionmaker[Session]) -> dict[str, str]:
    with sessions() as session:
        return {finding.subject: finding.severity for finding in batch_held(session)}


@pytest.mark.parametrize(
    ("status", "transactions", "is_found"),
    [
        ("held", ["pending"], True),
        ("held", ["completed", "processing"], True),
        ("held", [], True),
        # Auto-heal finishes it.
        ("held", ["completed", "failed"], False),
        ("queued", ["pending"], False),
        ("draft", ["pending"], False),
    ],
)
def test_held_batch_is_found_if_anything_in_it_is_open(
    company: Company, sessions: sessionmaker[Session], status: str, transactions: list[str], is_found: bool
) -> None:
    case = company.case()
    batch_id = company.batch(case=case, status=status)
    for one in transactions:
        company.transaction(batch_id, company.request(case, 500), 500, status=one)
    assert held(sessions) == ({f"batch {batch_id}": "MEDIUM"} if is_found else {})


def unknown_subjects(sessions: sessionmaker[Session]) -> list[str]:
    with sessions() as session:
        return [finding.subject for finding in unknown_transfer(session)]


def add_unknown(sessions: sessionmaker[Session], count: int = 1, **columns: Any) -> None:
    with sessions.begin() as session:
        for number in range(count):
            values = {
                "bank_transfer_id": f"tr_{number}",
                "idempotency_key": "x",
                "reference": "x",
                "status": "completed",
                "method": "wire",
                "amount_cents": 100,
                "created_at": ago(60),
                "updated_at": ago(60),
                "problem": "its reference is no transaction's number",
                **columns,
            }
            session.add(UnknownTransfer(**values))


@pytest.mark.parametrize(
    ("columns", "is_found"),
    [
        ({}, True),
        ({"explained_by": "ana", "explained_at": ago(0)}, False),
        # It changed after a person had explained it.
        ({"explained_by": "ana"}, True),
        # What is said to explain it does not exist.
        ({"transaction_id": 987_654_321, "explained_at": ago(0)}, True),
    ],
)
def test_unexplained_transfer_without_an_alert_is_found(
    sessions: sessionmaker[Session], columns: dict[str, Any], is_found: bool
) -> None:
    add_unknown(sessions, **columns)
    assert unknown_subjects(sessions) == (["bank transfer tr_0"] if is_found else [])


@pytest.mark.parametrize(
    ("count", "subject", "found_by_rule", "expected"),
    [
        (1, "bank transfer tr_0", False, []),
        (1, "bank transfer tr_0", True, ["bank transfer tr_0"]),
        (30, "unknown transfers", False, []),
        (2, "unknown transfers", True, ["unknown transfers"]),
        (21, "bank transfer tr_0", False, [f"bank transfer tr_{one}" for one in range(1, 21)]),
        (22, "another rule's", False, ["unknown transfers"]),
    ],
)
def test_unknown_transfers_with_an_alert_of_auto_heal_are_left_to_it(
    sessions: sessionmaker[Session], count: int, subject: str, found_by_rule: bool, expected: list[str]
) -> None:
    add_unknown(sessions, count)
    with sessions.begin() as session:
        session.add(
            Alert(
                rule="unknown_transfer" if "rule" not in subject else "batch_held",
                subject=subject,
                severity="CRITICAL",
                last_found_at=ago(0) if found_by_rule else None,
            )
        )
    assert sorted(unknown_subjects(sessions)) == sorted(expected)


def test_batch_held_for_over_a_day_is_high(company: Company, sessions: sessionmaker[Session]) -> None:
    batches = [company.batch([500], status="held") for _ in range(3)]
    with sessions.begin() as session:
        for batch_id, hours, is_resolved in zip(batches, (23, 25, 25), (False, False, True), strict=True):
            session.add(
                Alert(
                    rule="batch_held",
                    subject=f"batch {batch_id}",
                    severity="MEDIUM",
                    detail="",
                    opened_at=ago(hours * 3600),
                    resolved_at=ago(0) if is_resolved else None,
                )
            )
    severities = ["MEDIUM", "HIGH", "MEDIUM"]
    assert held(sessions) == {f"batch {one}": severity for one, severity in zip(batches, severities, strict=True)}


def test_held_batches_beyond_the_limit_are_counted_in_one_alert(
    company: Company, sessions: sessionmaker[Session]
) -> None:
    for _ in range(MAX_SEPARATE_FINDINGS + 3):
        company.batch([500], status="held")
    assert list(held(sessions))[-1] == "batch: others"
    assert len(held(sessions)) == MAX_SEPARATE_FINDINGS + 1
