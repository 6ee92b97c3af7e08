"""The applications' database as production has it: platform tables with an owner of their own, and our roles."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import URL

import seedtrust_ops

ROLES_SQL = Path(seedtrust_ops.__file__).parents[1] / "deploy" / "database_roles.sql"
PLATFORM_OWNER = "seedtrust_platform"
APP, MIGRATE, KEYS, READ, DAGSTER = (f"seedtrust_ops_{name}" for name in ("app", "migrate", "keys", "read", "dagster"))

As = Callable[[str], Connection]


def apply_roles(superuser: URL) -> None:
    """Run deploy/database_roles.sql, as its first lines say."""
    engine = create_engine(superuser)
    with engine.begin() as connection:
        connection.exec_driver_sql(ROLES_SQL.read_text().replace("%", "%%"))
    engine.dispose()


def give_to_an_owner_of_its_own(superuser: URL) -> None:
    """Make the platform's tables belong to the platform's role, who is no superuser."""
    engine = create_engine(superuser)
    with engine.begin() as connection:
        connection.execute(
            text(
                f"do $$ begin if not exists (select from pg_roles where rolname = '{PLATFORM_OWNER}')"
                f" then create role {PLATFORM_OWNER} login; end if; end $$"
            )
        )
        connection.execute(text(f"grant create on schema public to {PLATFORM_OWNER}"))
        connection.execute(text(f"grant create on database {superuser.database} to {PLATFORM_OWNER}"))
        tables = connection.scalars(text("select tablename from pg_tables where schemaname = 'public'")).all()
        for table in tables:
            connection.execute(text(f"alter table public.{table} owner to {PLATFORM_OWNER}"))
    engine.dispose()


@pytest.fixture
def roles(database_url: URL) -> URL:
    """The test's database with its roles; the URL is a superuser's."""
    give_to_an_owner_of_its_own(database_url)
    apply_roles(database_url)
    return database_url


@pytest.fixture
def connect_as(roles: URL) -> Iterator[As]:
    """Opens connections of a role; what they do is never committed."""
    opened: list[Connection] = []

    def open_one(role: str) -> Connection:
        engine = create_engine(roles.set(username=role))
        connection = engine.connect()
        opened.append(connection)
        return connection

    yield open_one
    for connection in opened:
        connection.close()
        connection.engine.dispose()
