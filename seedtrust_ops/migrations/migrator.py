"""Migrates schema `ops` to the newest revision and checks that the platform's schema has what the code uses.

It never alters a column of a platform table. It creates the platform's tables only on request (laptops, tests).
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, inspect, text

from seedtrust_ops.errors import SchemaOutOfDate
from seedtrust_ops.tables import PlatformTable

HERE = Path(__file__).parent
KNOWN_REVISIONS = tuple(f"{number:04}" for number in range(1, 29))
HEAD_REVISION = KNOWN_REVISIONS[-1]
PLATFORM_SCHEMA = HERE / "platform_schema.sql"
CUTOVER_JOB = "process_huntington_batch"
"""The job whose cutover is recorded in `ops.cutovers`."""
_FIRST_MIGRATION_LOCK = 7_305_401


def migrate(engine: Engine, *, create_platform: bool = False, legacy_worker_runs: bool = False) -> list[str]:
    """Migrate `ops` to the newest revision and check `public`; return one message per change.

    Everything is one transaction: if something is missing, nothing changes. Several processes may call it at once;
    the others wait and then find nothing to do.

    Args:
        engine: the application's database.
        create_platform: also create the platform's tables from `platform_schema.sql` if there are none.
        legacy_worker_runs: whether the legacy worker still sends transfers. If not, the moment of the cutover is
            recorded, once: from then on, no transfer is matched by its reference.

    Raises:
        SchemaOutOfDate: if `public` lacks columns that the code uses (the message names each), if the ledger posts
            a transaction twice, or if the revision of `ops` is newer than this code.
    """
    messages: list[str] = []
    with engine.begin() as connection:
        _wait_for_other_migrations(connection)
        if create_platform and not _existing_platform_tables(connection):
            connection.exec_driver_sql(PLATFORM_SCHEMA.read_text())
            messages.append("Created the platform's tables in schema public.")
        missing = missing_platform_columns(connection)
        if missing:
            raise SchemaOutOfDate(
                "Schema public lacks columns that the jobs use: " + ", ".join(missing) + ". It belongs to SeedTrust's "
                "applications: run their migrations first. (On a laptop, `seedtrust-ops migrate --platform` creates "
                "it.) Nothing was changed."
            )
        before = current_revision(connection)
        if before not in (None, *KNOWN_REVISIONS):
            raise SchemaOutOfDate(
                f"Schema ops is at revision {before}, which is unknown to this code (its newest is {HEAD_REVISION}). "
                "A newer version of SeedTrust Ops migrated it. Deploy that version; nothing was changed."
            )
        if before is None:
            _require_single_postings(connection)
        connection.execute(text("create schema if not exists ops"))
        config = Config()
        config.set_main_option("script_location", str(HERE))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        after = current_revision(connection)
        cutover = _record_cutover(connection, legacy_worker_runs)
    if before == after:
        messages.append(f"Schema ops is up to date (revision {after}).")
    else:
        messages.append(f"Migrated schema ops from revision {before or 'none'} to {after}.")
    return messages + cutover


def _record_cutover(connection: Connection, legacy_worker_runs: bool) -> list[str]:
    """Record when our worker took over from the legacy one, or that it has not; return what changed."""
    if legacy_worker_runs:
        removed = connection.execute(text("delete from ops.cutovers where job = :job"), {"job": CUTOVER_JOB})
        return [f"{CUTOVER_JOB} is in shadow: the cutover is no longer recorded."] if removed.rowcount else []
    moment = connection.scalar(
        text("insert into ops.cutovers (job) values (:job) on conflict do nothing returning at"), {"job": CUTOVER_JOB}
    )
    if moment is None:
        return []
    return [
        f"Recorded {moment:%Y-%m-%d %H:%M} UTC as the cutover of {CUTOVER_JOB}: only transfers that the legacy worker "
        "began before it are matched by reference. If that worker still runs, repeat this with SEEDTRUST_SHADOW=1."
    ]


def current_revision(connection: Connection) -> str | None:
    """Return the current revision of schema `ops`, None if it was never migrated."""
    if connection.scalar(text("select to_regclass('ops.alembic_version')")) is None:
        return None
    revision: str | None = connection.scalar(text("select version_num from ops.alembic_version"))
    return revision


def missing_platform_columns(connection: Connection) -> list[str]:
    """Return `table.column` for each mapped column that schema `public` lacks."""
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


def _wait_for_other_migrations(connection: Connection) -> None:
    """Wait until no other process migrates, and keep others waiting until this transaction ends.

    Any login can hold an advisory lock, so the revision's table is locked, which only its owner can do. Before the
    first migration there is no such table.
    """
    if connection.scalar(text("select to_regclass('ops.alembic_version')")) is None:
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _FIRST_MIGRATION_LOCK})
    else:
        connection.execute(text("lock table ops.alembic_version in share row exclusive mode"))


def _existing_platform_tables(connection: Connection) -> set[str]:
    """Return the names of the platform's tables that exist."""
    present = set(inspect(connection).get_table_names(schema="public"))
    return present & {table.name for table in PlatformTable.metadata.sorted_tables}


def _require_single_postings(connection: Connection) -> None:
    duplicates = connection.scalars(
        text(
            "select huntington_transaction_id from public.ledger_entries"
            " where huntington_transaction_id is not null and kind in ('disbursement', 'reversal')"
            " group by huntington_transaction_id having count(*) > count(distinct kind) order by 1 limit 20"
        )
    ).all()
    if duplicates:
        raise SchemaOutOfDate(
            "The ledger has more than one entry of the same kind for these Huntington transactions: "
            + ", ".join(str(transaction_id) for transaction_id in duplicates)
            + ". Reverse or correct the extra entries, then run `seedtrust-ops migrate` again; nothing was changed."
        )
