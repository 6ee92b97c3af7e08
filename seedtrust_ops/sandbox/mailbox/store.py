"""The mailbox's SQLite file: every email that the server accepted, in the order of arrival.

It includes emails whose SMTP reply was dropped on purpose: the sender cannot know that those were accepted.
"""

import sqlite3
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS emails (
    id INTEGER PRIMARY KEY, at TEXT NOT NULL, sender TEXT NOT NULL, recipient TEXT NOT NULL,
    message_id TEXT, content BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS emails_by_recipient ON emails (recipient, id);
"""


class MailboxStore:
    """One open mailbox file; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """Open or create the file."""
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        # No sync per email: a killed process still loses nothing, and the sandbox need not survive a power failure.
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.executescript(SCHEMA)

    def add(self, sender: str, recipients: Sequence[str], content: bytes) -> None:
        """Store one email, once for each recipient."""
        message_id = BytesHeaderParser().parsebytes(content)["Message-ID"]
        at = datetime.now(UTC).isoformat()
        with self._lock:
            self._connection.executemany(
                "INSERT INTO emails (at, sender, recipient, message_id, content) VALUES (?, ?, ?, ?, ?)",
                [(at, sender, recipient, message_id, content) for recipient in recipients],
            )

    def emails(self, recipient: str | None, after: int, limit: int) -> list[dict[str, Any]]:
        """Return emails with an id above `after`, oldest first; only those to `recipient` if it is given."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT * FROM emails WHERE id > ? AND (? IS NULL OR recipient = ?) ORDER BY id LIMIT ?",
                (after, recipient, recipient, limit),
            ).fetchall()
        return [dict(row) for row in rows]

    def count(self) -> int:
        """Return how many emails are stored."""
        with self._lock:
            (count,) = self._connection.execute("SELECT count(*) FROM emails").fetchone()
        return int(count)

    def message_ids(self) -> list[tuple[str, str | None]]:
        """Return the recipient and Message-ID of every email, oldest first."""
        with self._lock:
            rows = self._connection.execute("SELECT recipient, message_id FROM emails ORDER BY id").fetchall()
        return [(row["recipient"], row["message_id"]) for row in rows]

    def empty(self) -> None:
        """Delete all emails."""
        with self._lock:
            self._connection.execute("DELETE FROM emails")
