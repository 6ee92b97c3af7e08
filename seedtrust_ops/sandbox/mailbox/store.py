"""The mailbox's file: every letter that the server took, in the order in which it took them.

A letter whose answer was lost on purpose is in it too; the sender can't know that, and that is the point.
"""

import sqlite3
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS letters (
    id INTEGER PRIMARY KEY, at TEXT NOT NULL, sender TEXT NOT NULL, recipient TEXT NOT NULL,
    message_id TEXT, content BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS letters_by_recipient ON letters (recipient, id);
"""


class MailboxStore:
    """One open mailbox file; threads may share it."""

    def __init__(self, path: Path) -> None:
        """Open or make the file."""
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        # Without a sync a letter: a killed process loses nothing, and the sandbox need not survive a power cut.
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.executescript(SCHEMA)

    def keep(self, sender: str, recipients: Sequence[str], content: bytes) -> None:
        """Keep one letter, once for each recipient."""
        message_id = BytesHeaderParser().parsebytes(content)["Message-ID"]
        at = datetime.now(UTC).isoformat()
        with self._lock:
            self._connection.executemany(
                "INSERT INTO letters (at, sender, recipient, message_id, content) VALUES (?, ?, ?, ?, ?)",
                [(at, sender, recipient, message_id, content) for recipient in recipients],
            )

    def letters(self, recipient: str | None, after: int, limit: int) -> list[dict[str, Any]]:
        """Return letters with a number above `after`, oldest first; to one recipient where one is given."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT * FROM letters WHERE id > ? AND (? IS NULL OR recipient = ?) ORDER BY id LIMIT ?",
                (after, recipient, recipient, limit),
            ).fetchall()
        return [dict(row) for row in rows]

    def count(self) -> int:
        """Return how many letters are kept."""
        with self._lock:
            (count,) = self._connection.execute("SELECT count(*) FROM letters").fetchone()
        return int(count)

    def message_ids(self) -> list[tuple[str, str | None]]:
        """Return recipient and Message-ID of every letter, oldest first."""
        with self._lock:
            rows = self._connection.execute("SELECT recipient, message_id FROM letters ORDER BY id").fetchall()
        return [(row["recipient"], row["message_id"]) for row in rows]

    def empty(self) -> None:
        """Throw all letters away."""
        with self._lock:
            self._connection.execute("DELETE FROM letters")
