"""A journal of every /v1 request that reached the bank: its filters, the fault it got, and its response status.

For tests and the demo; it is not part of the ledger. Bodies are not stored, so no account number is.
"""

from seedtrust_ops.sandbox.bank.contract import format_timestamp
from seedtrust_ops.sandbox.bank.faults import Fault, IncomingRequest
from seedtrust_ops.sandbox.bank.store import Store


class RequestJournal:
    """The `requests` table."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def record_request(self, incoming: IncomingRequest, query: str, fault: Fault | None) -> int:
        """Record a request before it is handled; returns its number in the journal."""
        (number,) = self._store.connection.execute(
            "INSERT INTO requests (at, method, path, query, idempotency_key, reference, amount_cents, fault) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
            (
                self._store.next_timestamp(),
                incoming.method,
                incoming.path,
                query,
                incoming.keys[0] if len(incoming.keys) == 1 else None,
                incoming.references[0] if len(incoming.references) == 1 else None,
                incoming.amount_cents,
                fault.kind if fault else None,
            ),
        ).fetchone()
        return int(number)

    def record_status(self, number: int, status: int) -> None:
        """Record the status that was sent; it stays null if the connection was reset or the bank was killed."""
        self._store.connection.execute("UPDATE requests SET status = ? WHERE id = ?", (status, number))

    def entries(self) -> list[dict[str, object]]:
        """Return all requests, oldest first."""
        rows = self._store.connection.execute("SELECT * FROM requests ORDER BY id")
        return [{**dict(row), "at": format_timestamp(row["at"])} for row in rows]
