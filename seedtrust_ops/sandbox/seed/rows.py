"""The rows of a generated company, as tuples by table, and writing them to the database with COPY.

Their content is generated in `company` and `money`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from psycopg import sql
from sqlalchemy import Connection

Row = tuple[object, ...]

# In the order that the foreign keys require.
COLUMNS: dict[str, Sequence[str]] = {
    "users": ("id", "email", "full_name", "role", "is_active", "created_at"),
    "cases": ("id", "case_number", "status", "close_on", "escrow_specialist_id", "case_manager_id", "created_at"),
    "case_parties": ("case_id", "user_id", "role"),
    "accounts": ("id", "case_id", "balance_cents", "minimum_balance_cents"),
    "disbursement_requests": (
        *("id", "case_id", "payee_id", "amount_cents", "category", "description", "status", "auto_authorize_at"),
        *("on_hold", "requested_at", "approved_at", "approved_by", "paid_at"),
    ),
    "approval_rules": (
        *("id", "name", "is_enabled", "position", "category", "payee_id", "case_id", "max_amount_cents"),
        *("keep_minimum_balance", "daily_limit_cents"),
    ),
    "huntington_batches": (
        *("id", "status", "priority", "created_by", "created_at", "queued_at", "started_at", "finished_at", "error"),
    ),
    "huntington_transactions": (
        *("id", "batch_id", "disbursement_request_id", "method", "amount_cents", "payee_name", "routing_number"),
        *("account_number_encrypted", "account_number_last4", "account_type", "status", "failure_reason"),
        *("completed_at", "updated_at"),
    ),
    "ledger_entries": ("account_id", "amount_cents", "kind", "huntington_transaction_id", "memo", "posted_at"),
}


@dataclass
class CompanyRows:
    """Every row of a company, by table; ids start at 1 in each table."""

    tables: dict[str, list[Row]] = field(default_factory=lambda: {table: [] for table in COLUMNS})

    def add(self, table: str, *values: object) -> None:
        """Add a row to `table`, with its values in the order of `COLUMNS`."""
        self.tables[table].append(values)

    def next_id(self, table: str) -> int:
        """Return the id of the next row of `table`."""
        return len(self.tables[table]) + 1

    def write(self, connection: Connection) -> None:
        """Write all rows in the connection's transaction, and advance the tables' id sequences past them."""
        cursor = connection.connection.cursor()
        for table, columns in COLUMNS.items():
            statement = sql.SQL("copy public.{} ({}) from stdin").format(
                sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
            )
            with cursor.copy(statement) as copy:
                for row in self.tables[table]:
                    copy.write_row(row)
            if columns[0] == "id" and self.tables[table]:
                cursor.execute(
                    "select setval(pg_get_serial_sequence(%s, 'id'), %s)",
                    (f"public.{table}", len(self.tables[table])),
                )
