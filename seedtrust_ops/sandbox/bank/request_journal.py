"""Every contract request that reached the bank: what it asked, which fault it met, how it was answered.

It is for tests and the demo to read, no part of the ledger; bodies are not kept, so no account number can be.
"""

from seedtrust_ops.sandbox.bank.contract import shown_moment
from seedtrust_ops.sandbox.bank.faults import Fault, Incoming
from seedtrust_ops.sandbox.bank.store import Store


class RequestJournal:
    """The `requests` table."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def received(self, incoming: Incoming, query: str, fault: Fault | None) -> int:
        """Write a request down before anything is done about it; returns its number in the journal."""
        (number,) = self._store.connection.execute(
            "INSERT INTO requests (at, method, path, query, idempotency_key, reference, amount_cents, fault) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
            (
                self._store.moment(),
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

    def answered(self, number: int, status: int) -> None:
        """Note the status that was sent; a request that was reset, or whose bank was killed, keeps null."""
        self._store.connection.execute("UPDATE requests SET status = ? WHERE id = ?", (status, number))

    def shown(self) -> list[dict[str, object]]:
        """All requests, oldest first."""
        rows = self._store.connection.execute("SELECT * FROM requests ORDER BY id")
        return [{**dict(row), "at": shown_moment(row["at"])} for row in rows]
