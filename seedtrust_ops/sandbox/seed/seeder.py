"""Seeds a database with a made-up company, once, and only a database that is empty.

It never touches a database that holds anybody else's rows.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, text

from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.sandbox.seed.company import make_company
from seedtrust_ops.sandbox.seed.money import Encrypt
from seedtrust_ops.sandbox.seed.names import EMAIL_DOMAIN
from seedtrust_ops.sandbox.seed.rows import COLUMNS

FEWEST_CASES = 10


class NotOurDatabase(SeedTrustError):
    """The database holds what the seed did not make."""


class TooFewCases(SeedTrustError):
    """So few cases don't show every status."""


@dataclass(frozen=True)
class Seeded:
    """What a seeded database holds, in rows; `added` where this seeding wrote them."""

    added: bool
    rows: dict[str, int]


def seed_company(engine: Engine, *, cases: int, seed: int, encrypt: Encrypt, now: datetime | None = None) -> Seeded:
    """Seed an empty database; one that holds a seeded company already stays as it is.

    Args:
        engine: the application's database, migrated.
        cases: how many cases, 10 or more.
        seed: decides everything that is left to chance.
        encrypt: turns an account number into its token.
        now: the moment at which the company stands; None for the present.

    Raises:
        TooFewCases: when fewer cases are asked for.
        NotOurDatabase: when it holds users or other rows that the seed did not make.
    """
    if cases < FEWEST_CASES:
        raise TooFewCases(f"Ask for {FEWEST_CASES} cases or more: fewer don't show every status.")
    with engine.begin() as connection:
        # Two seedings at once must not both find it empty.
        connection.execute(text("lock table public.users in exclusive mode"))
        counts = {table: _count(connection, table) for table in COLUMNS}
        if any(counts.values()):
            _refuse_foreign(connection, counts)
            return Seeded(added=False, rows=counts)
        company = make_company(cases, seed, now or datetime.now(UTC), encrypt)
        company.write(connection)
        return Seeded(added=True, rows={table: len(rows) for table, rows in company.tables.items()})


def _count(connection: Connection, table: str) -> int:
    return int(connection.scalar(text(f"select count(*) from public.{table}")) or 0)  # noqa: S608 - our own names


def _refuse_foreign(connection: Connection, counts: dict[str, int]) -> None:
    foreign = connection.scalar(
        text("select count(*) from public.users where email not like :ours"), {"ours": f"%.{EMAIL_DOMAIN}"}
    )
    if foreign or not counts["users"]:
        raise NotOurDatabase(
            f"The database holds {foreign or 'no'} users and {counts['cases']} cases that the seed did not make, so "
            "nothing was changed: give it an empty database."
        )
