"""The application database as in production: platform tables with their own owner, and our roles."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import URL

import seedtrust_ops

ROLES_SQL = Path(seedtrust_ops.__file__).parents[1] / "deploy" / "database_roles.sql"
PLATFORM_OWNER = "seedtrust_platform"
APP, OPERATOR, MIGRATE, KEYS, READ, DAGSTER = (
    f"seedtrust_ops_{name}" for name in ("app", "operator", "migrate", "keys", "read", "dagster")
)

ConnectAs = Callable[[str], Connection]


def apply_roles(superuser: URL) -> None:
    """Run deploy/database_roles.sql in one transaction, as its header says."""
    engine = create_engine(superuser)
    with engine.begin() as connection:
        connection.exec_driver_sql(ROLES_SQL.read_text().replace("%", "%%"))
    engine.dispose()


def assign_platform_owner(superuser: URL) -> None:
    """Make PLATFORM_OWNER, which is not a superuser, the owner of the platform's tables."""
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


def create_login(superuser: URL, name: str, *, of: str | None = None) -> str:
    """Create a login that inherits the role `of`, if there is none yet, and return its name."""
    engine = create_engine(superuser)
    with engine.begin() as connection:
        membership = f" in role {of}" if of else ""
        connection.execute(
            text(
                f"do $$ begin if not exists (select from pg_roles where rolname = '{name}')"
                f" then create role {name} login{membership}; end if; end $$"
            )
        )
    engine.dispose()
    return name


@pytest.fixture
def roles(database_url: URL) -> URL:
    """The test database with its roles; the URL is a superuser's."""
    assign_platform_owner(database_url)
    apply_roles(database_url)
    return database_url


@pytest.fixture
def connect_as(roles: URL) -> Iterator[ConnectAs]:
    """Opens connections as a role; nothing is committed."""
    opened: list[Connection] = []

    def open_connection(role: str) -> Connection:
        engine = create_engine(roles.set(username=role))
        connection = engine.connect()
        opened.append(connection)
        return connection

    yield open_connection
    for connection in opened:
        connection.close()
        connection.engine.dispose()
