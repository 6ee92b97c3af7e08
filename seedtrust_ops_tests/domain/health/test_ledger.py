"""Ledger mismatches: balances and entries to the cent, and what transfers moved beside what was posted for them."""

from typing import Any

import pytest
from sqlalchemy import delete, text, update
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.health.ledger import ledger_mismatch
from seedtrust_ops.domain.health.rule import MAX_SEPARATE_FINDINGS
from seedtrust_ops.domain.transfers.evidence import ensure_evidence
from seedtrust_ops.tables import Account, HuntingtonTransaction, LedgerCorrection, LedgerEntry, TransferEvidence
from seedtrust_ops_tests.support.factories import BuiltCase, Company

CENTS = 500_000
Entry = tuple[str, int]
"""Kind and cents; 'correction' before the kind means an entry that is linked to its transaction as a correction."""


def mismatches(sessions: sessionmaker[Session]) -> dict[str, str]:
    with sessions() as session:
        return {finding.subject: finding.detail for finding in ledger_mismatch(session)}


@pytest.mark.parametrize(("tampered_cents", "difference"), [(0, None), (1, "$0.01 more"), (-250_000, "$2,500.00 less")])
def test_balance_that_differs_from_its_ledger_is_found_to_the_cent(
    company: Company, sessions: sessionmaker[Session], tampered_cents: int, difference: str | None
) -> None:
    company.case(balance_cents=5_000)
    case = company.case(balance_cents=1_000_000)
    with sessions.begin() as session:
        session.add(LedgerEntry(account_id=case.account_id, amount_cents=-400, kind="fee"))
        session.get_one(Account, case.account_id).balance_cents = 1_000_000 - 400 + tampered_cents
    found = mismatches(sessions)
    assert list(found) == ([f"account {case.account_id}"] if difference else [])
    assert difference is None or difference in found[f"account {case.account_id}"]


def test_balance_without_any_ledger_entry_is_found(company: Company, sessions: sessionmaker[Session]) -> None:
    case = company.case(balance_cents=0)
    assert mismatches(sessions) == {}
    with sessions.begin() as session:
        session.get_one(Account, case.account_id).balance_cents = 7
    assert list(mismatches(sessions)) == [f"account {case.account_id}"]


@pytest.mark.parametrize(
    ("status", "kind", "is_found"),
    [
        ("completed", "disbursement", False),
        ("completed", None, True),
        ("completed", "fee", True),
        ("submitted", None, False),
        ("failed", None, False),
    ],
)
def test_completed_transaction_without_disbursement_entry_is_found(
    company: Company, sessions: sessionmaker[Session], status: str, kind: str | None, is_found: bool
) -> None:
    case = company.case(balance_cents=10_000)
    batch_id = company.batch(case=case, status="completed")
    transaction_id = company.transaction(batch_id, company.request(case, 500), 500, status=status)
    if kind is not None:
        with sessions.begin() as session:
            entry = LedgerEntry(
                account_id=case.account_id, amount_cents=-500, kind=kind, huntington_transaction_id=transaction_id
            )
            session.add(entry)
            session.get_one(Account, case.account_id).balance_cents -= 500
    assert list(mismatches(sessions)) == ([f"transaction {transaction_id}"] if is_found else [])


def test_many_mismatches_open_a_bounded_number_of_alerts(company: Company, sessions: sessionmaker[Session]) -> None:
    for _ in range(MAX_SEPARATE_FINDINGS + 2):
        company.case(balance_cents=100)
    with sessions.begin() as session:
        session.execute(text("update accounts set balance_cents = 0"))
    found = mismatches(sessions)
    assert len(found) == MAX_SEPARATE_FINDINGS + 1
    assert found["accounts: others"].startswith("2 more have the same problem as account ")


@pytest.fixture
def case(company: Company) -> BuiltCase:
    return company.case(balance_cents=10 * CENTS)


def plant_transfer(company: Company, case: BuiltCase, status: str = "completed", **evidence: Any) -> int:
    """Plant a transaction of CENTS, and its evidence with these columns unless there are none."""
    batch_id = company.batch(case=case, status="completed")
    transaction_id = company.transaction(batch_id, company.request(case, CENTS), CENTS, status=status)
    if evidence:
        with company.sessions.begin() as session:
            ensure_evidence(session, [transaction_id])
            session.execute(
                update(TransferEvidence).where(TransferEvidence.transaction_id == transaction_id).values(**evidence)
            )
    return transaction_id


def post(company: Company, account_id: int, transaction_id: int, *entries: Entry) -> None:
    """Post entries with the balance, as only somebody with all rights could."""
    with company.sessions.begin() as session:
        for kind, cents in entries:
            is_correction = kind.startswith("correction ")
            entry = LedgerEntry(
                account_id=account_id,
                amount_cents=cents,
                kind=kind.removeprefix("correction "),
                huntington_transaction_id=None if is_correction else transaction_id,
            )
            session.add(entry)
            session.get_one(Account, account_id).balance_cents += cents
            session.flush()
            if is_correction:
                session.add(LedgerCorrection(ledger_entry_id=entry.id, transaction_id=transaction_id))


MOVED = {"state": "moved", "bank_status": "completed"}
ACCEPTED = {"state": "in_flight", "bank_status": "accepted"}
RETURNED = {"state": "not_moved", "bank_status": "returned"}
REFUSED = {"state": "not_moved", "bank_status": None}
CONTRADICTED = {"state": "contradicted", "bank_status": "rejected"}
PAID, BACK = ("disbursement", -CENTS), ("reversal", CENTS)
UNPAID, REPAID = ("correction reversal", CENTS), ("correction disbursement", -CENTS)
MISSING = ("correction disbursement", 1 - CENTS)


@pytest.mark.parametrize(
    ("evidence", "entries", "problem"),
    [
        (MOVED, [PAID], None),
        (MOVED, [], "other entries than what it moved"),
        (MOVED, [("disbursement", -1)], "other entries than what it moved"),
        (MOVED, [("disbursement", -CENTS - 1)], "other entries than what it moved"),
        (MOVED, [("disbursement", CENTS)], "adds money"),
        (MOVED, [("reversal", -CENTS)], "reversal that takes"),
        (MOVED, [("fee", -CENTS)], "neither a disbursement nor a reversal"),
        (MOVED, [PAID, ("deposit", CENTS)], "neither a disbursement nor a reversal"),
        (MOVED, [PAID, BACK], "other entries than what it moved"),
        (MOVED, [("disbursement", -CENTS - 100), ("reversal", 100)], "disbursement of another amount"),
        # The bank's amount counts, not what was sent.
        (MOVED | {"bank_amount_cents": 700}, [("disbursement", -700)], None),
        (MOVED | {"bank_amount_cents": 700}, [PAID], "other entries than what it moved"),
        (ACCEPTED, [], None),
        (ACCEPTED, [PAID], "other entries than what it moved"),
        (ACCEPTED, [PAID, BACK], "never moved money"),
        (REFUSED, [], None),
        (REFUSED, [PAID], "other entries than what it moved"),
        (REFUSED, [PAID, BACK], "never moved money"),
        (RETURNED, [PAID, BACK], None),
        (RETURNED, [PAID], "other entries than what it moved"),
        (RETURNED, [PAID, ("reversal", CENTS - 1)], "other entries than what it moved"),
        (RETURNED, [("disbursement", -1), ("reversal", 1)], "disbursement of another amount"),
        # What was booked stays while the bank contradicts itself.
        (CONTRADICTED, [PAID], None),
        (CONTRADICTED, [PAID, BACK], None),
        (CONTRADICTED, [("disbursement", -1)], "other entries than what it moved"),
        # What people settle, and what the bank says after that.
        ({"state": "moved", "settled_as": "completed"}, [PAID], None),
        ({"state": "moved", "settled_as": "completed"}, [("disbursement", -1), MISSING], None),
        ({"state": "not_moved", "settled_as": "failed"}, [], None),
        ({"state": "not_moved", "settled_as": "failed"}, [PAID, UNPAID], None),
        ({"state": "not_moved", "settled_as": "failed"}, [PAID], "other entries than what it moved"),
        ({"state": "not_moved", "settled_as": "returned"}, [PAID, BACK], None),
        ({"state": "not_moved", "settled_as": "returned"}, [REPAID, UNPAID], None),
        (MOVED, [PAID, BACK, REPAID], None),
        (MOVED, [PAID, UNPAID, REPAID], None),
        (MOVED, [PAID, UNPAID], "other entries than what it moved"),
        (ACCEPTED, [PAID, UNPAID], None),
        (MOVED, [("correction fee", -CENTS)], "neither a disbursement nor a reversal"),
    ],
)  # fmt: skip
def test_entries_are_compared_with_what_the_transfer_moved(
    company: Company,
    sessions: sessionmaker[Session],
    case: BuiltCase,
    evidence: dict[str, Any],
    entries: list[Entry],
    problem: str | None,
) -> None:
    transaction_id = plant_transfer(company, case, "failed", **evidence)
    post(company, case.account_id, transaction_id, *entries)
    found = mismatches(sessions)
    assert list(found) == ([f"transaction {transaction_id}"] if problem else [])
    assert problem is None or problem in found[f"transaction {transaction_id}"]


@pytest.mark.parametrize("is_correction", [False, True])
@pytest.mark.parametrize("evidence", [MOVED, {}])
def test_entry_in_the_account_of_another_case_is_found(
    company: Company, sessions: sessionmaker[Session], case: BuiltCase, evidence: dict[str, Any], is_correction: bool
) -> None:
    transaction_id = plant_transfer(company, case, **evidence)
    other = company.case(balance_cents=10 * CENTS)
    post(company, other.account_id, transaction_id, REPAID if is_correction else PAID)
    assert "in the account of another case" in mismatches(sessions)[f"transaction {transaction_id}"]


def test_transfer_of_a_deleted_transaction_is_compared(
    company: Company, sessions: sessionmaker[Session], case: BuiltCase
) -> None:
    unbooked, corrected = (plant_transfer(company, case, **MOVED) for _ in range(2))
    with sessions.begin() as session:
        session.execute(delete(HuntingtonTransaction))
    post(company, case.account_id, corrected, REPAID)
    assert list(mismatches(sessions)) == [f"transaction {unbooked}"]


@pytest.mark.parametrize(
    ("status", "entries", "is_found"),
    [
        ("completed", [PAID], False),
        ("completed", [("disbursement", -1)], True),
        ("returned", [PAID, BACK], False),
        ("returned", [PAID], True),
        ("submitted", [PAID], True),
        ("pending", [], False),
    ],
)
def test_legacy_transfer_is_compared_by_its_status(
    company: Company,
    sessions: sessionmaker[Session],
    case: BuiltCase,
    status: str,
    entries: list[Entry],
    is_found: bool,
) -> None:
    transaction_id = plant_transfer(company, case, status)
    post(company, case.account_id, transaction_id, *entries)
    assert list(mismatches(sessions)) == ([f"transaction {transaction_id}"] if is_found else [])


def test_completed_status_that_a_person_wrote_is_found(
    company: Company, sessions: sessionmaker[Session], case: BuiltCase
) -> None:
    transaction_id = plant_transfer(company, case, "completed", **REFUSED)
    assert "is completed but has no entry" in mismatches(sessions)[f"transaction {transaction_id}"]
