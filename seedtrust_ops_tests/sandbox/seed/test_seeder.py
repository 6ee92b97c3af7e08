"""The seeded company balances, has every status, is reproducible, and is never written into other data."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.transfers.preflight import find_routing_number_problem
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.sandbox.seed.batches import (
    NotEnoughApprovedRequests,
    Payment,
    draft_batch,
    payable_requests,
    queue_batches,
)
from seedtrust_ops.sandbox.seed.company import make_company
from seedtrust_ops.sandbox.seed.seeder import DatabaseNotEmpty, TooFewCases, seed_company
from seedtrust_ops_tests.support.factories import Company

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def engine(sessions: sessionmaker[Session]) -> Engine:
    engine = sessions.kw["bind"]
    assert isinstance(engine, Engine)
    return engine


@pytest.fixture
def seeded_engine(engine: Engine, cipher: FernetFieldCipher) -> Engine:
    assert seed_company(engine, cases=40, seed=7, encrypt=cipher.encrypt).added
    return engine


def distinct_values(engine: Engine, query: str) -> set[object]:
    with engine.connect() as connection:
        return set(connection.scalars(text(query)))


def count_rows(engine: Engine, query: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(query)).scalar_one())


def test_balances_equal_their_ledgers(seeded_engine: Engine, company: Company) -> None:
    assert company.unbalanced_accounts() == []
    assert count_rows(seeded_engine, "select count(*) from accounts where balance_cents < 0") == 0


def test_accounts_were_never_negative(seeded_engine: Engine) -> None:
    running = (
        "select count(*) from (select sum(amount_cents) over (partition by account_id order by posted_at, "
        "amount_cents desc) as cents from ledger_entries) as running where cents < 0"
    )
    assert count_rows(seeded_engine, running) == 0


def test_accounts_cover_their_approved_requests(seeded_engine: Engine) -> None:
    short = (
        "select count(*) from accounts where balance_cents < (select coalesce(sum(amount_cents), 0) "
        "from disbursement_requests d where d.case_id = accounts.case_id and d.status = 'approved')"
    )
    assert count_rows(seeded_engine, short) == 0


def test_company_has_every_status_and_role(seeded_engine: Engine) -> None:
    assert distinct_values(seeded_engine, "select status from cases") == {"active", "closing", "closed"}
    assert distinct_values(seeded_engine, "select role from users") == {
        *("intended_parent", "ip_rep", "case_manager", "escrow_specialist", "surrogate", "admin")
    }
    assert distinct_values(seeded_engine, "select role from case_parties") == {"intended_parent", "ip_rep", "surrogate"}
    assert distinct_values(seeded_engine, "select status from disbursement_requests") == {
        *("pending", "approved", "denied", "cancelled", "paid")
    }
    assert distinct_values(seeded_engine, "select status from huntington_transactions") == {
        "completed",
        "returned",
        "failed",
    }
    assert distinct_values(seeded_engine, "select method from huntington_transactions") == {"ach", "wire"}
    pending = (
        "select on_hold::text || coalesce((auto_authorize_at < now())::text, 'never') "
        "from disbursement_requests where status = 'pending'"
    )
    assert distinct_values(seeded_engine, pending) == {"falsetrue", "falsefalse", "falsenever", "truetrue"}
    assert count_rows(seeded_engine, "select count(*) from accounts where balance_cents < minimum_balance_cents") > 0
    assert count_rows(seeded_engine, "select count(*) from users where not is_active") > 0
    assert count_rows(seeded_engine, "select count(*) from approval_rules where is_enabled") > 0


def test_paid_requests_have_a_transaction_and_a_ledger_entry(seeded_engine: Engine) -> None:
    incomplete = (
        "select count(*) from disbursement_requests d where status = 'paid' and not exists (select from "
        "huntington_transactions t join ledger_entries l on l.huntington_transaction_id = t.id where "
        "t.disbursement_request_id = d.id and t.status = 'completed' and l.kind = 'disbursement' and "
        "-l.amount_cents = d.amount_cents)"
    )
    assert count_rows(seeded_engine, incomplete) == 0


def test_bank_details_are_valid_and_encrypted(seeded_engine: Engine, cipher: FernetFieldCipher) -> None:
    with seeded_engine.connect() as connection:
        rows = connection.execute(text("select * from huntington_transactions")).all()
    for row in rows:
        assert find_routing_number_problem(row.routing_number) is None
        account_number = cipher.decrypt(row.account_number_encrypted)
        assert account_number.isdigit()
        assert 4 <= len(account_number) <= 17
        assert account_number.endswith(row.account_number_last4)
        assert 1 <= len(row.payee_name) <= 35


def test_same_seed_gives_the_same_company() -> None:
    company = make_company(25, 3, NOW, encrypt=str)
    assert company.tables == make_company(25, 3, NOW, encrypt=str).tables
    assert company.tables != make_company(25, 4, NOW, encrypt=str).tables


def test_seeded_database_is_left_unchanged(seeded_engine: Engine, cipher: FernetFieldCipher) -> None:
    again = seed_company(seeded_engine, cases=90, seed=8, encrypt=cipher.encrypt)
    assert not again.added
    assert again.rows["cases"] == 40


def test_database_with_other_data_is_refused(engine: Engine, company: Company, cipher: FernetFieldCipher) -> None:
    company.case()
    with pytest.raises(DatabaseNotEmpty, match="Nothing was changed"):
        seed_company(engine, cases=40, seed=7, encrypt=cipher.encrypt)
    assert count_rows(engine, "select count(*) from cases") == 1


def test_too_few_cases_are_refused(engine: Engine, cipher: FernetFieldCipher) -> None:
    with pytest.raises(TooFewCases):
        seed_company(engine, cases=9, seed=7, encrypt=cipher.encrypt)


def test_approved_requests_are_offered_only_once(
    seeded_engine: Engine, sessions: sessionmaker[Session], cipher: FernetFieldCipher, company: Company
) -> None:
    with sessions.begin() as session:
        first = payable_requests(session, 5)
        batch = draft_batch(session, [Payment(payable, "wire") for payable in first], cipher.encrypt)
        queue_batches(session, [batch.batch_id])
    assert company.batch_row(batch.batch_id).status == "queued"
    assert [transaction.id for transaction in company.transactions(batch.batch_id)] == batch.transaction_ids
    with sessions() as session:
        assert not {payable.request_id for payable in payable_requests(session, 5)} & {
            payable.request_id for payable in first
        }
        with pytest.raises(NotEnoughApprovedRequests, match="Seed more cases"):
            payable_requests(session, 10_000)
