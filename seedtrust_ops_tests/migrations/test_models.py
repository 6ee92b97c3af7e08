"""The ORM models match the database schema: all facts of both are compared in both directions.

The platform's schema comes from its SQL file, ours from a migrated database.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, ForeignKeyConstraint, Index, MetaData, UniqueConstraint, inspect
from sqlalchemy.dialects import postgresql

from seedtrust_ops.migrations import migrator
from seedtrust_ops.migrations.migrator import migrate
from seedtrust_ops.sandbox import bank
from seedtrust_ops.tables import OpsTable, PlatformTable

DESIGN = Path(__file__).parents[3] / "shared" / "design"
DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]

PINNED_COLUMNS = {
    "notifications": "id dedupe_key kind recipient_id recipient_email subject status attempts created_at sent_at",
    "balance_alerts": "id account_id balance_cents minimum_balance_cents shortfall_cents opened_at resolved_at",
    "transfer_attempts": "id transaction_id idempotency_key attempt outcome bank_transfer_id started_at finished_at"
    " detail",
    "alerts": "id rule subject severity opened_at resolved_at detail",
    "audit_events": "id at actor action subject reason detail",
}


def facts_of_models(metadata: MetaData) -> Iterator[str]:
    """The facts of the ORM models, one sentence each."""
    for table in metadata.sorted_tables:
        yield f"{table.name} is a table"
        for column in table.columns:
            where = f"{table.name}.{column.name}"
            yield f"{where} is of type {column.type.compile(dialect=DIALECT)}"
            yield f"{where} {'may' if column.nullable else 'may not'} be null"
            if column.server_default is not None:
                yield f"{where} has {'an identity' if column.identity is not None else 'a default'}"
        yield f"{table.name} has primary key {[column.name for column in table.primary_key.columns]}"
        for constraint in table.constraints:
            columns = [column.name for column in constraint.columns] if hasattr(constraint, "columns") else []
            if isinstance(constraint, UniqueConstraint):
                yield f"{table.name} is unique by {columns} where None"
            if isinstance(constraint, ForeignKeyConstraint):
                target = [element.column for element in constraint.elements]
                yield f"{table.name} {columns} refers to {target[0].table.name} {[other.name for other in target]}"
        for index in table.indexes:
            yield _index_fact(table.name, [column.name for column in index.columns], bool(index.unique), _where(index))


def facts_of_database(engine: Engine, schema: str) -> Iterator[str]:
    """The facts of the database, in the same sentences."""
    inspector = inspect(engine)
    for table in inspector.get_table_names(schema=schema):
        if table == "alembic_version":
            continue
        yield f"{table} is a table"
        for column in inspector.get_columns(table, schema=schema):
            where = f"{table}.{column['name']}"
            yield f"{where} is of type {column['type'].compile(dialect=DIALECT)}"
            yield f"{where} {'may' if column['nullable'] else 'may not'} be null"
            if column.get("identity") or column["default"] is not None:
                yield f"{where} has {'an identity' if column.get('identity') else 'a default'}"
        yield f"{table} has primary key {inspector.get_pk_constraint(table, schema=schema)['constrained_columns']}"
        for key in inspector.get_foreign_keys(table, schema=schema):
            yield f"{table} {key['constrained_columns']} refers to {key['referred_table']} {key['referred_columns']}"
        for index in inspector.get_indexes(table, schema=schema):
            condition = index.get("dialect_options", {}).get("postgresql_where")
            yield _index_fact(table, index["column_names"], index["unique"], condition)


def _where(index: Index) -> str | None:
    condition = index.dialect_options["postgresql"]["where"]
    return None if condition is None else f"({condition})"


def _index_fact(table: str, columns: list[str | None], unique: bool, condition: str | None) -> str:
    return f"{table} is {'unique' if unique else 'indexed'} by {columns} where {condition}"


def test_models_match_the_platform_schema(platform_database: Engine) -> None:
    models, database = set(facts_of_models(PlatformTable.metadata)), set(facts_of_database(platform_database, "public"))
    assert sorted(models - database) == sorted(database - models) == []
    assert len(models) > 200


def test_models_match_the_migrated_schema(platform_database: Engine) -> None:
    migrate(platform_database)
    models, database = set(facts_of_models(OpsTable.metadata)), set(facts_of_database(platform_database, "ops"))
    assert sorted(models - database) == sorted(database - models) == []


@pytest.mark.parametrize(("table", "columns"), PINNED_COLUMNS.items())
def test_pinned_columns_exist(platform_database: Engine, table: str, columns: str) -> None:
    migrate(platform_database)
    present = {column["name"] for column in inspect(platform_database).get_columns(table, schema="ops")}
    assert set(columns.split()) - present == set()


@pytest.mark.skipif(not DESIGN.is_dir(), reason="the design folder is not next to this checkout")
@pytest.mark.parametrize(
    ("name", "copy"),
    [
        ("platform_schema.sql", migrator.PLATFORM_SCHEMA),
        ("bank_api.yaml", Path(str(bank.__file__)).parent / "bank_api.yaml"),
    ],
)
def test_packaged_contract_is_identical_to_the_design(name: str, copy: Path) -> None:
    assert copy.read_bytes() == (DESIGN / name).read_bytes()
