"""The bank's file: its SQLite connection, its tables and its clock, where ACH transfers settle by themselves.

It knows no rule about who may be paid; that is the ledger's. It keeps no account number, only keyed digests.
"""

import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MICROSECONDS = 1_000_000

# `keys` is apart from `transfers` because a refusal is kept for ever too, and because a bank can lose a key.
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
    account_id TEXT NOT NULL REFERENCES accounts (id), settles_at INTEGER, planted INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS transfers_by_reference ON transfers (reference);
CREATE INDEX IF NOT EXISTS transfers_by_update ON transfers (updated_at, id);
CREATE INDEX IF NOT EXISTS transfers_to_settle ON transfers (settles_at) WHERE status = 'accepted';
CREATE TABLE IF NOT EXISTS movements (
    id INTEGER PRIMARY KEY, at INTEGER NOT NULL, transfer_id TEXT NOT NULL, idempotency_key TEXT NOT NULL,
    reference TEXT NOT NULL, direction TEXT NOT NULL CHECK (direction IN ('out', 'back')),
    amount_cents INTEGER NOT NULL, cause TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY, at INTEGER NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL,
    query TEXT NOT NULL, idempotency_key TEXT, reference TEXT, amount_cents INTEGER,
    fault TEXT, status INTEGER
) STRICT;
"""


class Store:
    """One open bank file. One thread uses it: a transaction ends before the next request is looked at."""

    def __init__(self, path: Path, *, opening_cents: Mapping[str, int], ach_settlement_seconds: float) -> None:
        """Open or create the file; `opening_cents` funds accounts (by id) that the file does not have yet."""
        self.path = path
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.connection.row_factory = sqlite3.Row
        self.connection.execute("PRAGMA journal_mode = WAL")
        # In WAL mode NORMAL loses nothing when the process is killed, only when the machine loses power.
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.executescript(SCHEMA)
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
        self._last_moment: int
        (self._last_moment,) = self.connection.execute("SELECT coalesce(max(updated_at), 0) FROM transfers").fetchone()

    def moment(self) -> int:
        """The bank's time in microseconds since 1970; no two calls return the same, and it never goes back.

        That makes the feed whole: whatever changes after a page was read is newer than all that was on it.
        """
        self._last_moment = max(time.time_ns() // 1000 + self._clock_offset, self._last_moment + 1)
        return self._last_moment

    @property
    def clock_offset_seconds(self) -> float:
        """How far the bank's clock is ahead of this machine's, in seconds."""
        return self._clock_offset / MICROSECONDS

    def advance_clock(self, offset_seconds: float) -> None:
        """Put the bank's clock ahead of this machine's; raises ValueError where that would turn it back."""
        offset = int(offset_seconds * MICROSECONDS)
        if offset < self._clock_offset:
            raise ValueError(
                f"The bank's clock only goes forward, and is {self.clock_offset_seconds:g} s ahead already."
            )
        self.connection.execute("UPDATE settings SET value = ? WHERE name = 'clock_offset'", (offset,))
        self._clock_offset = offset

    @contextmanager
    def transaction(self) -> Iterator[int]:
        """One atomic step at one moment, which it yields; every ACH that was due by then is settled first."""
        moment = self.moment()
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            self.connection.execute(
                "UPDATE transfers SET status = 'completed', updated_at = settles_at "
                "WHERE status = 'accepted' AND settles_at < ?",
                (moment,),
            )
            yield moment
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def move_money(self, transfer: sqlite3.Row, direction: str, cause: str, moment: int) -> None:
        """Move a transfer's cents 'out' of its funding account or 'back' into it, and journal that."""
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
                moment,
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
