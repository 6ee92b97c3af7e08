"""The bank's SQLite file: its tables, the journal of requests, and the bank's clock, by which ACH transfers settle.

Who may be paid is decided in `ledger`. No account number is stored, only keyed digests.
"""

import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seedtrust_ops.sandbox.bank.contract import format_timestamp
from seedtrust_ops.sandbox.bank.faults import Fault, IncomingRequest

MICROSECONDS = 1_000_000

# `keys` is separate from `transfers` because refusals are stored too, and because a bank can lose a key.
SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS accounts (
    id TEXT PRIMARY KEY, opening_cents INTEGER NOT NULL,
    available_cents INTEGER NOT NULL CHECK (available_cents >= 0)
) STRICT;
CREATE TABLE IF NOT EXISTS keys (
    key TEXT PRIMARY KEY, body_digest BLOB NOT NULL, status INTEGER NOT NULL, answer BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS transfers (
    id TEXT PRIMARY KEY, idempotency_key TEXT NOT NULL UNIQUE, status TEXT NOT NULL,
    return_code TEXT, reason TEXT, method TEXT NOT NULL, amount_cents INTEGER NOT NULL,
    reference TEXT NOT NULL,
    created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
    account_id TEXT NOT NULL REFERENCES accounts (id), settles_at INTEGER, inserted INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS transfers_by_reference ON transfers (reference);
CREATE INDEX IF NOT EXISTS transfers_by_update ON transfers (updated_at, id);
CREATE INDEX IF NOT EXISTS transfers_to_settle ON transfers (settles_at) WHERE status = 'accepted';
CREATE TABLE IF NOT EXISTS movements (
    id INTEGER PRIMARY KEY, at INTEGER NOT NULL, transfer_id TEXT NOT NULL, idempotency_key TEXT NOT NULL,
    reference TEXT NOT NULL, direction TEXT NOT NULL CHECK (direction IN ('out', 'back')),
    amount_cents INTEGER NOT NULL, cause TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS misreports (reference TEXT PRIMARY KEY, fields TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY, at INTEGER NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL,
    query TEXT NOT NULL, idempotency_key TEXT, reference TEXT, amount_cents INTEGER,
    fault TEXT, status INTEGER
) STRICT;
"""


class Store:
    """One open bank file, used by one thread: a transaction ends before the next request is handled."""

    def __init__(self, path: Path, *, opening_cents: Mapping[str, int], ach_settlement_seconds: float) -> None:
        """Open or create the file; `opening_cents` funds accounts (by id) that the file does not have yet."""
        self.path = path
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.connection.row_factory = sqlite3.Row
        self.connection.execute("PRAGMA journal_mode = WAL")
        # In WAL mode, NORMAL loses nothing if the process is killed, only if the machine loses power.
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.executescript(SCHEMA)
        self._rename_old_column()
        self.connection.executemany(
            "INSERT OR IGNORE INTO accounts VALUES (?, ?, ?)",
            [(account_id, cents, cents) for account_id, cents in opening_cents.items()],
        )
        self.connection.execute(
            "INSERT OR IGNORE INTO settings VALUES ('digest_secret', ?), ('clock_offset', 0)",
            (secrets.token_bytes(32),),
        )
        self.settlement = int(ach_settlement_seconds * MICROSECONDS)
        self.digest_secret: bytes = self._setting("digest_secret")
        self._clock_offset: int = self._setting("clock_offset")
        self._last_timestamp: int
        (self._last_timestamp,) = self.connection.execute(
            "SELECT coalesce(max(updated_at), 0) FROM transfers"
        ).fetchone()

    def _rename_old_column(self) -> None:
        # A laptop's bank file may be older than the column's present name.
        columns = {row["name"] for row in self.connection.execute("PRAGMA table_info(transfers)")}
        if "planted" in columns:
            self.connection.execute("ALTER TABLE transfers RENAME COLUMN planted TO inserted")

    def next_timestamp(self) -> int:
        """Return the bank's time in microseconds since 1970; every call returns a higher value than the last.

        This keeps the feed complete: a change made after a page was read is newer than everything on that page.
        """
        self._last_timestamp = max(time.time_ns() // 1000 + self._clock_offset, self._last_timestamp + 1)
        return self._last_timestamp

    @property
    def clock_offset_seconds(self) -> float:
        """How far the bank's clock is ahead of this machine's, in seconds."""
        return self._clock_offset / MICROSECONDS

    def advance_clock(self, offset_seconds: float) -> None:
        """Set the bank's clock ahead of this machine's; raises ValueError if that would move it back."""
        offset = int(offset_seconds * MICROSECONDS)
        if offset < self._clock_offset:
            raise ValueError(
                f"The bank's clock can only move forward. It is already {self.clock_offset_seconds:g} s ahead."
            )
        self.connection.execute("UPDATE settings SET value = ? WHERE name = 'clock_offset'", (offset,))
        self._clock_offset = offset

    @contextmanager
    def transaction(self) -> Iterator[int]:
        """Run one transaction and yield its timestamp; every ACH that is due by then is settled first."""
        now = self.next_timestamp()
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            self.connection.execute(
                "UPDATE transfers SET status = 'completed', updated_at = settles_at "
                "WHERE status = 'accepted' AND settles_at < ?",
                (now,),
            )
            yield now
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def move_money(self, transfer: sqlite3.Row, direction: str, cause: str, at: int) -> None:
        """Move a transfer's cents 'out' of its funding account or 'back' into it, and record the movement."""
        cents = transfer["amount_cents"] if direction == "back" else -transfer["amount_cents"]
        self.connection.execute(
            "UPDATE accounts SET available_cents = available_cents + ? WHERE id = ?",
            (cents, transfer["account_id"]),
        )
        self.connection.execute(
            "INSERT INTO movements "
            "(at, transfer_id, idempotency_key, reference, direction, amount_cents, cause) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                at,
                transfer["id"],
                transfer["idempotency_key"],
                transfer["reference"],
                direction,
                transfer["amount_cents"],
                cause,
            ),
        )

    def _setting(self, name: str) -> Any:
        (value,) = self.connection.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return value


class RequestJournal:
    """A journal of every /v1 request that reached the bank: its filters, the fault it got, and its response status.

    For tests and the demo; it is not part of the ledger. Bodies are not stored, so no account number is.
    """

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
