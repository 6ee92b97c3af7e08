"""The demo's reconciliation agrees if both ledgers do, and finds a difference of a single cent, key or account."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.sandbox.bank.control_client import SandboxBank
from seedtrust_ops.sandbox.bank.process import start_bank
from seedtrust_ops.sandbox.demo.reconciliation import Reconciliation, reconcile
from seedtrust_ops.sandbox.seed.seeder import backfill_past_transfers, seed_company

pytestmark = pytest.mark.usefixtures("child_processes")


@pytest.fixture
def own_bank(tmp_path: Path) -> Iterator[SandboxBank]:
    with start_bank(tmp_path / "bank.sqlite", api_key="a-key") as bank:
        yield bank.control


@pytest.fixture
def seeded_sessions(
    sessions: sessionmaker[Session], own_bank: SandboxBank, cipher: FernetFieldCipher
) -> sessionmaker[Session]:
    engine = sessions.kw["bind"]
    assert isinstance(engine, Engine)
    seed_company(engine, cases=20, seed=5, encrypt=cipher.encrypt)
    assert backfill_past_transfers(sessions, own_bank) > 0
    assert backfill_past_transfers(sessions, own_bank) == 0
    return sessions


def reconcile_ledgers(sessions: sessionmaker[Session], bank: SandboxBank) -> Reconciliation:
    with sessions() as session:
        return reconcile(session, bank)


def completed_transaction(sessions: sessionmaker[Session]) -> tuple[int, int]:
    with sessions() as session:
        row = session.execute(
            text("select id, amount_cents from huntington_transactions where status = 'completed' order by id limit 1")
        ).one()
    return row.id, row.amount_cents


def test_seeded_company_and_its_bank_agree(seeded_sessions: sessionmaker[Session], own_bank: SandboxBank) -> None:
    found = reconcile_ledgers(seeded_sessions, own_bank)
    assert found.agrees
    assert found.at_bank_cents == found.booked_cents == found.out_cents - found.back_cents > 0
    assert found.back_cents > 0


def test_duplicate_transfer_is_found(seeded_sessions: sessionmaker[Session], own_bank: SandboxBank) -> None:
    transaction_id, cents = completed_transaction(seeded_sessions)
    own_bank.insert_transfer(str(transaction_id), cents, method="wire")
    found = reconcile_ledgers(seeded_sessions, own_bank)
    assert not found.agrees
    assert found.paid_more_than_once == [str(transaction_id)]
    assert found.mismatched_transactions == [transaction_id]
    assert sum(batch.difference_cents for batch in found.batches) == cents


def test_unknown_transfer_is_found(seeded_sessions: sessionmaker[Session], own_bank: SandboxBank) -> None:
    own_bank.insert_transfer("unknown reference", 100, method="wire")
    found = reconcile_ledgers(seeded_sessions, own_bank)
    assert not found.agrees
    assert found.unknown_references == ["unknown reference"]


def test_transfer_that_a_person_explained_agrees(seeded_sessions: sessionmaker[Session], own_bank: SandboxBank) -> None:
    unknown = own_bank.add_unknown_transfer(amount_cents=4_200)
    before = reconcile_ledgers(seeded_sessions, own_bank)
    assert before.unknown_references == [unknown["reference"]]
    with seeded_sessions.begin() as session:
        session.execute(
            text(
                "insert into ops.unknown_transfers (bank_transfer_id, idempotency_key, reference, status, method,"
                " amount_cents, created_at, updated_at, problem, explained_at, explained_by)"
                " values (:id, 'k', 'r', 'completed', 'wire', 4200, now(), now(), '', now(), 'ana')"
            ),
            {"id": unknown["id"]},
        )
    found = reconcile_ledgers(seeded_sessions, own_bank)
    assert found.agrees
    assert found.explained_cents == 4_200


def test_balance_off_by_one_cent_is_found(seeded_sessions: sessionmaker[Session], own_bank: SandboxBank) -> None:
    with seeded_sessions.begin() as session:
        session.execute(text("update accounts set balance_cents = balance_cents + 1 where id = 3"))
    found = reconcile_ledgers(seeded_sessions, own_bank)
    assert not found.agrees
    assert found.unbalanced_accounts == [3]
