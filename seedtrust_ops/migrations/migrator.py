"""Brings schema `ops` up to date and checks that the platform's schema has what the code uses.

It never alters a platform table's columns; it creates `public` only where it is told to (laptops, tests).
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, inspect, text

from seedtrust_ops.errors import SchemaOutOfDate
from seedtrust_ops.tables import PlatformTable

HERE = Path(__file__).parent
KNOWN_REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")
HEAD_REVISION = KNOWN_REVISIONS[-1]
PLATFORM_SCHEMA = HERE / "platform_schema.sql"
_MIGRATION_LOCK = 7_305_401


def migrate(engine: Engine, *, create_platform: bool = False) -> list[str]:
    """Bring `ops` to the newest revision and check `public`; return what was done, a sentence each.

    All of it is one transaction: where something is missing, nothing has changed. Several processes may
    call it at once; the others wait and then find the work done.

    Args:
        engine: the application's database.
        create_platform: also create the platform's tables from `platform_schema.sql` where none is there.

    Raises:
        SchemaOutOfDate: naming each column of `public` that the code uses and the database lacks, or the
            transactions that the ledger books twice, or a revision of `ops` that is newer than this code.
    """
    done: list[str] = []
    with engine.begin() as connection:
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        if create_platform and not _platform_tables(connection):
            connection.exec_driver_sql(PLATFORM_SCHEMA.read_text())
            done.append("Created the platform's tables in schema public.")
        missing = missing_platform_columns(connection)
        if missing:
            raise SchemaOutOfDate(
                "The database lacks what the jobs use: " + ", ".join(missing) + ". Schema public belongs to "
                "SeedTrust's applications: bring theirs up to date first (on a laptop: "
                "`seedtrust-ops migrate --platform` creates it)."
            )
        before = current_revision(connection)
        if before not in (None, *KNOWN_REVISIONS):
            raise SchemaOutOfDate(
                f"Schema ops is at revision {before}, which this code does not know (its newest is {HEAD_REVISION}): "
                "a newer version of this project was here. Deploy that version; nothing was changed."
            )
        if before is None:
            _refuse_double_bookings(connection)
        connection.execute(text("create schema if not exists ops"))
        config = Config()
        config.set_main_option("script_location", str(HERE))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        after = current_revision(connection)
    if before == after:
        done.append(f"Schema ops is up to date (revision {after}).")
    else:
        done.append(f"Brought schema ops from {before or 'nothing'} to revision {after}.")
    return done


def current_revision(connection: Connection) -> str | None:
    """Return the revision that schema `ops` is at, None where it was never migrated."""
    if connection.scalar(text("select to_regclass('ops.alembic_version')")) is None:
        return None
    revision: str | None = connection.scalar(text("select version_num from ops.alembic_version"))
    return revision


def missing_platform_columns(connection: Connection) -> list[str]:
    """Return `table.column` for each column that the code maps and schema `public` lacks."""
    rows = connection.execute(
        text("select table_name, column_name from information_schema.columns where table_schema = 'public'")
    )
    present = {(table, column) for table, column in rows}
    return [
        f"{table.name}.{column.name}"
        for table in PlatformTable.metadata.sorted_tables
        for column in table.columns
        if (table.name, column.name) not in present
    ]


def _platform_tables(connection: Connection) -> set[str]:
    """Return those of the platform's tables that are there."""
    present = set(inspect(connection).get_table_names(schema="public"))
    return present & {table.name for table in PlatformTable.metadata.sorted_tables}


def _refuse_double_bookings(connection: Connection) -> None:
    twice = connection.scalars(
        text(
            "select huntington_transaction_id from public.ledger_entries"
            " where huntington_transaction_id is not null and kind in ('disbursement', 'reversal')"
            " group by huntington_transaction_id having count(*) > count(distinct kind) order by 1 limit 20"
        )
    ).all()
    if twice:
        raise SchemaOutOfDate(
            "The ledger books these Huntington transactions more than once: "
            + ", ".join(str(transaction_id) for transaction_id in twice)
            + ". Reverse or correct the extra entries, then run `seedtrust-ops migrate` again; nothing was changed."
        )
