"""Seeds an empty database with a generated company, once, and copies its past transfers into the sandbox bank.

It never changes a database that already has other data.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import BigInteger, Connection, Engine, Text, column, select, text, update, values
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.transfers.attempts import idempotency_key
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.sandbox.bank.control_client import SandboxBank
from seedtrust_ops.sandbox.seed.company import make_company
from seedtrust_ops.sandbox.seed.money import Encrypt
from seedtrust_ops.sandbox.seed.names import EMAIL_DOMAIN
from seedtrust_ops.sandbox.seed.rows import COLUMNS
from seedtrust_ops.tables import HuntingtonTransaction

MIN_CASES = 10


class DatabaseNotEmpty(SeedTrustError):
    """The database has data that the seeder did not create."""


class TooFewCases(SeedTrustError):
    """Too few cases to have one in every status."""


@dataclass(frozen=True)
class SeedResult:
    """The number of rows in each table of a seeded database."""

    added: bool
    """Whether this call wrote them; False if the database was already seeded."""
    rows: dict[str, int]


def seed_company(engine: Engine, *, cases: int, seed: int, encrypt: Encrypt, now: datetime | None = None) -> SeedResult:
    """Seed an empty database; a database that is already seeded is left unchanged.

    Args:
        engine: the application's database, migrated.
        cases: how many cases, 10 or more.
        seed: the random seed.
        encrypt: encrypts an account number.
        now: the time as of which the company is generated; None for the current time.

    Raises:
        TooFewCases: if `cases` is below 10.
        DatabaseNotEmpty: if it has users or other rows that the seeder did not create.
    """
    if cases < MIN_CASES:
        raise TooFewCases(f"At least {MIN_CASES} cases are needed to have every status. Pass a higher number of cases.")
    with engine.begin() as connection:
        # Two seeders that run at the same time must not both find it empty.
        connection.execute(text("lock table public.users in exclusive mode"))
        counts = {table: _count(connection, table) for table in COLUMNS}
        if any(counts.values()):
            _require_seeded(connection, counts)
            return SeedResult(added=False, rows=counts)
        company = make_company(cases, seed, now or datetime.now(UTC), encrypt)
        company.write(connection)
        return SeedResult(added=True, rows={table: len(rows) for table, rows in company.tables.items()})


def backfill_past_transfers(sessions: sessionmaker[Session], bank: SandboxBank) -> int:
    """Insert every completed or returned transfer that the bank does not have yet; return how many.

    Then both ledgers agree; a real bank would already have them. The bank's ids are recorded on the transactions, as
    they would have been when the transfers were sent.
    """
    with sessions() as session:
        past = session.scalars(
            select(HuntingtonTransaction)
            .where(
                HuntingtonTransaction.status.in_(("completed", "returned")),
                HuntingtonTransaction.bank_transfer_id.is_(None),
            )
            .order_by(HuntingtonTransaction.id)
        ).all()
    # No database transaction is open here: on a busy machine the bank can take longer than the idle timeout allows.
    bank_ids = [(transaction.id, _insert_transfer(transaction, bank)) for transaction in past]
    if bank_ids:
        inserted = values(column("id", BigInteger), column("bank_id", Text), name="inserted").data(bank_ids)
        with sessions.begin() as session:
            session.execute(
                update(HuntingtonTransaction)
                .where(HuntingtonTransaction.id == inserted.c.id)
                .values(bank_transfer_id=inserted.c.bank_id)
            )
    return len(bank_ids)


def _count(connection: Connection, table: str) -> int:
    return int(connection.scalar(text(f"select count(*) from public.{table}")) or 0)  # noqa: S608 - our own table names


def _require_seeded(connection: Connection, counts: dict[str, int]) -> None:
    """Raise DatabaseNotEmpty unless all users were created by the seeder."""
    other_users = connection.scalar(
        text("select count(*) from public.users where email not like :ours"), {"ours": f"%.{EMAIL_DOMAIN}"}
    )
    if other_users or not counts["users"]:
        raise DatabaseNotEmpty(
            f"The database has data that `seed` did not create ({other_users or 0} users, {counts['cases']} cases). "
            "Nothing was changed. Use an empty database."
        )


def _insert_transfer(transaction: HuntingtonTransaction, bank: SandboxBank) -> str:
    """Insert one past transfer at the bank; return the bank's id of it."""
    returned = transaction.status == "returned"
    transfer = bank.insert_transfer(
        str(transaction.id),
        transaction.amount_cents,
        idempotency_key=idempotency_key(transaction.id),
        method=transaction.method,
        status="returned" if returned else "completed",
        return_code=transaction.failure_reason if returned else None,
        created_at=transaction.completed_at,
    )
    return transfer["id"]
