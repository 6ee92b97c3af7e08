"""`migrate` brings schema ops up to date, by as many as like, or names what is missing and changes nothing.

The platform's tables stay as their owners made them.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError

from seedtrust_ops.errors import SchemaOutOfDate
from seedtrust_ops.migrations.migrator import HEAD_REVISION, KNOWN_REVISIONS, current_revision, migrate
from seedtrust_ops_tests.support.waiters import wait_until

MIGRATION_LOCK = 7_305_401
MIGRATE = (
    "import sys; from sqlalchemy import create_engine; from seedtrust_ops.migrations.migrator import migrate;"
    "print(*migrate(create_engine(sys.argv[1])))"
)


def columns_of_public(engine: Engine) -> list[tuple[object, ...]]:
    """All that PostgreSQL knows of the platform's columns and constraints."""
    with engine.connect() as connection:
        columns = connection.execute(
            text(
                "select * from information_schema.columns where table_schema = 'public'"
                " order by table_name, ordinal_position"
            )
        )
        constraints = connection.execute(
            text(
                "select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint"
                " where connamespace = 'public'::regnamespace order by 1, 2"
            )
        )
        return [tuple(row) for row in [*columns, *constraints]]


def has_ops(engine: Engine) -> bool:
    with engine.connect() as connection:
        return connection.scalar(text("select to_regnamespace('ops')")) is not None


def execute(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_migrate_is_idempotent(platform_database: Engine) -> None:
    first = migrate(platform_database)
    second = migrate(platform_database)
    assert first == [f"Brought schema ops from nothing to revision {HEAD_REVISION}."]
    assert second == [f"Schema ops is up to date (revision {HEAD_REVISION})."]
    with platform_database.connect() as connection:
        assert current_revision(connection) == HEAD_REVISION


def test_migrate_makes_the_platform_only_where_told_and_only_where_none_of_it_is_there(empty_database: Engine) -> None:
    with pytest.raises(SchemaOutOfDate, match="migrate --platform"):
        migrate(empty_database)
    assert not has_ops(empty_database)
    assert migrate(empty_database, create_platform=True)[0] == "Created the platform's tables in schema public."
    assert len(migrate(empty_database, create_platform=True)) == 1


def test_half_a_platform_is_named_and_never_completed(platform_database: Engine) -> None:
    execute(platform_database, "drop table huntington_batches cascade")
    with pytest.raises(SchemaOutOfDate, match=r"huntington_batches\.id"):
        migrate(platform_database, create_platform=True)


def test_two_processes_may_migrate_at_once(platform_database: Engine) -> None:
    with platform_database.connect() as gate:
        gate.execute(text(f"select pg_advisory_lock({MIGRATION_LOCK})"))
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", MIGRATE, platform_database.url.render_as_string(hide_password=False)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        waiting = text(
            "select count(*) from pg_locks where locktype = 'advisory' and not granted and database ="
            " (select oid from pg_database where datname = current_database())"
        )
        wait_until(lambda: gate.scalar(waiting) == 2, what="both to wait at the lock")
        gate.execute(text(f"select pg_advisory_unlock({MIGRATION_LOCK})"))
        gate.commit()
        said = sorted(process.communicate(timeout=120)[0].strip() for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert said == [
        f"Brought schema ops from nothing to revision {HEAD_REVISION}.",
        f"Schema ops is up to date (revision {HEAD_REVISION}).",
    ]


@pytest.mark.parametrize(
    ("statements", "named"),
    [
        (["alter table users drop column is_on_site"], ["users.is_on_site"]),
        (
            ["alter table cases drop column close_on", "alter table accounts drop column minimum_balance_cents"],
            ["cases.close_on", "accounts.minimum_balance_cents"],
        ),
        (["drop table viewing_payments"], ["viewing_payments.user_id", "viewing_payments.since"]),
        (["alter table errors rename column message to text"], ["errors.message"]),
    ],
)
def test_what_public_lacks_is_named_and_nothing_is_changed(
    platform_database: Engine, statements: list[str], named: list[str]
) -> None:
    execute(platform_database, *statements)
    before = columns_of_public(platform_database)
    with pytest.raises(SchemaOutOfDate) as raised:
        migrate(platform_database)
    assert all(name in str(raised.value) for name in named)
    assert "users.email" not in str(raised.value)
    assert columns_of_public(platform_database) == before
    assert not has_ops(platform_database)


def test_columns_and_tables_that_the_platform_adds_are_no_trouble(platform_database: Engine) -> None:
    execute(platform_database, "alter table users add column nickname text", "create table consents (id bigint)")
    migrate(platform_database)
    assert has_ops(platform_database)


def test_a_ledger_that_books_a_transfer_twice_is_named_and_nothing_is_changed(platform_database: Engine) -> None:
    execute(
        platform_database,
        "insert into cases (case_number) values ('CASE-1')",
        "insert into accounts (case_id) values (1)",
        "insert into huntington_batches default values",
        "insert into huntington_transactions (batch_id, method, amount_cents, payee_name, routing_number,"
        " account_number_encrypted, account_number_last4, account_type)"
        " select 1, 'ach', 100, 'Dana', '044000024', 'x', '1234', 'checking' from generate_series(1, 4)",
        "insert into ledger_entries (account_id, amount_cents, kind, huntington_transaction_id) values"
        " (1, -100, 'disbursement', 1), (1, 100, 'reversal', 1), (1, -100, 'fee', 1), (1, -100, 'fee', 1),"
        " (1, -100, 'disbursement', 2), (1, -100, 'disbursement', 2),"
        " (1, 100, 'reversal', 3), (1, 100, 'reversal', 3), (1, 100, 'deposit', null), (1, 100, 'deposit', null)",
    )
    with pytest.raises(SchemaOutOfDate, match=r"transactions more than once: 2, 3\. Reverse"):
        migrate(platform_database)
    assert not has_ops(platform_database)
    execute(platform_database, "delete from ledger_entries where id in (6, 8)")
    migrate(platform_database)


def test_migrating_leaves_every_column_and_constraint_of_the_platform_as_it_was(platform_database: Engine) -> None:
    before = columns_of_public(platform_database)
    migrate(platform_database)
    migrate(platform_database)
    assert columns_of_public(platform_database) == before


def test_a_schema_newer_than_this_code_is_told_and_left_alone(platform_database: Engine) -> None:
    migrate(platform_database)
    execute(platform_database, "update ops.alembic_version set version_num = '9999'")
    with pytest.raises(SchemaOutOfDate, match="revision 9999, which this code does not know"):
        migrate(platform_database)


def test_the_known_revisions_are_those_of_the_folder() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    from seedtrust_ops.migrations.migrator import HERE

    config = Config()
    config.set_main_option("script_location", str(HERE))
    revisions = [one.revision for one in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(revisions)) == KNOWN_REVISIONS


@pytest.fixture
def migrated(database_url: URL) -> Iterator[Engine]:
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


@pytest.mark.parametrize(
    "statement",
    [
        "update ops.transfer_attempts set outcome = 'completed'",
        "update ops.transfer_attempts set finished_at = now() where attempt = 1",
        "delete from ops.transfer_attempts",
        "truncate ops.transfer_attempts",
    ],
)
def test_transfer_attempts_are_never_changed_or_removed(migrated: Engine, statement: str) -> None:
    execute(
        migrated,
        "insert into ops.transfer_attempts (transaction_id, idempotency_key, attempt, outcome, started_at)"
        " values (1, 'seedtrust-transaction-1', 1, 'started', now())",
    )
    with pytest.raises(DBAPIError, match=r"ops\.transfer_attempts is append-only"):
        execute(migrated, statement)
    with migrated.connect() as connection:
        assert connection.scalar(text("select count(*) from ops.transfer_attempts where outcome = 'started'")) == 1


ALERT = "insert into ops.alerts (rule, subject, severity, resolved_at) values ('{}', '{}', 'HIGH', {})"
BALANCE = (
    "insert into ops.balance_alerts (account_id, balance_cents, minimum_balance_cents, shortfall_cents, resolved_at)"
    " values ({}, 1, 2, 1, {})"
)


@pytest.mark.parametrize(
    ("row", "same", "others"),
    [
        (ALERT.format, ("rule", "job a"), [("rule", "job b"), ("other rule", "job a")]),
        (BALANCE.format, (1,), [(2,)]),
    ],
    ids=["alerts", "balance_alerts"],
)
def test_at_most_one_unresolved_alert_a_subject_and_any_number_of_resolved_ones(
    migrated: Engine, row: Callable[..., str], same: tuple[object, ...], others: list[tuple[object, ...]]
) -> None:
    execute(migrated, row(*same, "now()"), row(*same, "now()"), row(*same, "null"))
    execute(migrated, *(row(*other, "null") for other in others))
    with pytest.raises(IntegrityError):
        execute(migrated, row(*same, "null"))


@pytest.mark.parametrize("kind", ["disbursement", "reversal"])
def test_nobody_can_book_one_transfer_twice_after_the_migration(migrated: Engine, kind: str) -> None:
    execute(
        migrated,
        "insert into cases (case_number) values ('CASE-1')",
        "insert into accounts (case_id) values (1)",
        "insert into huntington_batches default values",
        "insert into huntington_transactions (id, batch_id, method, amount_cents, payee_name, routing_number,"
        " account_number_encrypted, account_number_last4, account_type)"
        " values (1, 1, 'ach', 100, 'Dana', '044000024', 'x', '1234', 'checking')",
    )
    entry = (
        "insert into ledger_entries (account_id, amount_cents, kind, huntington_transaction_id)"
        f" values (1, 100, '{kind}', 1)"
    )
    execute(migrated, entry)
    with pytest.raises(IntegrityError, match=f"ledger_entries_one_{kind}"):
        execute(migrated, entry)


def test_a_letter_is_written_once_by_its_dedupe_key(migrated: Engine) -> None:
    letter = (
        "insert into ops.notifications (dedupe_key, kind, recipient_email, subject)"
        " values ('report:1:1', 'report', 'a@example.test', 'Your report')"
    )
    execute(migrated, letter)
    with pytest.raises(IntegrityError):
        execute(migrated, letter)
