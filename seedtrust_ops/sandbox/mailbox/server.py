"""One mailbox: its SMTP server, the SQLite file of the emails it accepted, and its control endpoints.

SeedTrust's clients use SMTP only. Tests and the demo read the emails and inject faults over HTTP, under /sandbox.
"""

import asyncio
import base64
import socket
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from seedtrust_ops.sandbox.mailbox.faults import MailFault, MailFaults, Step

MAX_EMAIL_BYTES = 20_000_000
"""Attached reports of up to 5 MB grow by a third when they are encoded."""
PAGE_SIZE = 100
SCHEMA = """
CREATE TABLE IF NOT EXISTS emails (
    id INTEGER PRIMARY KEY, at TEXT NOT NULL, sender TEXT NOT NULL, recipient TEXT NOT NULL,
    message_id TEXT, content BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS emails_by_recipient ON emails (recipient, id);
"""


class MailboxStore:
    """One open mailbox file with every email that the server accepted, in the order of arrival; thread-safe.

    It includes emails whose SMTP reply was dropped on purpose: the sender cannot know that those were accepted.
    """

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


class Mailbox:
    """One mail server: its stored emails, its injected faults, and its number of connections."""

    def __init__(self, store: MailboxStore, username: str | None, password: str | None) -> None:
        """Accept emails from anyone, or only with this login if `username` is given."""
        self.store = store
        self.faults = MailFaults()
        self.connections = 0
        self._login = (username, password) if username is not None else None

    def serve_smtp(self, listener: socket.socket) -> None:
        """Accept emails on `listener` in a background thread, until the process exits."""

        async def serve() -> None:
            server = await asyncio.get_running_loop().create_server(self._connection, sock=listener)
            await server.serve_forever()

        threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()

    def _connection(self) -> SMTP:
        self.connections += 1
        return SMTP(
            self,
            data_size_limit=MAX_EMAIL_BYTES,
            enable_SMTPUTF8=True,
            hostname="mailbox.sandbox",
            ident="SeedTrust sandbox mailbox",
            authenticator=self._authenticate,
            auth_required=self._login is not None,
            auth_require_tls=False,
        )

    def _authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, login: Any
    ) -> AuthResult:
        given = (login.login.decode(), login.password.decode()) if isinstance(login, LoginPassword) else None
        return AuthResult(success=given == self._login, handled=False)

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Accept the sender, or reply that the server is busy and disconnect."""
        fault = await self._apply_fault(server, "MAIL", [])
        if fault is not None:
            await server.push("421 4.3.2 The sandbox is busy")
            self._hang_up(server)
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Accept the recipient, or reject it permanently (550), as a closed relay does (554), or temporarily (451)."""
        fault = await self._apply_fault(server, "RCPT", [address])
        if fault is not None:
            unknown = f"550 5.1.1 <{address}> user unknown"
            if fault.kind == "reject_and_hang_up":
                await server.push(unknown)
                self._hang_up(server)
            return {
                "reject": unknown,
                "relay_denied": f"554 5.7.1 <{address}>: Relay access denied",
            }.get(fault.kind, f"451 4.7.1 <{address}> try again later")
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Store the email, unless an injected fault rejects it."""
        fault = await self._apply_fault(server, "DATA", envelope.rcpt_tos)
        if fault is not None and fault.kind == "reject_content":
            return "554 5.6.0 The sandbox rejected the content of this email"
        assert isinstance(envelope.content, bytes), "decode_data is off"
        self.store.add(envelope.mail_from or "", envelope.rcpt_tos, envelope.content)
        if fault is not None and fault.kind == "drop_after_accepting":
            self._hang_up(server)
        return "250 OK, email stored"

    async def _apply_fault(self, server: SMTP, step: Step, recipients: list[str]) -> MailFault | None:
        """Return the fault for this step, if any; delays and disconnects that come before the reply happen here."""
        fault = self.faults.next(step, recipients)
        if fault is None:
            return None
        if fault.kind == "delay":
            await asyncio.sleep(fault.seconds)
        if fault.kind in ("drop_at_mail", "drop_before_accepting"):
            self._hang_up(server)
        return fault

    def _hang_up(self, server: SMTP) -> None:
        assert server.transport is not None, "a client is connected"
        server.transport.close()
        # This is how aiosmtpd signals a lost connection.
        raise asyncio.CancelledError


def control_app(mailbox: Mailbox, smtp_port: int) -> Starlette:
    """Return the control endpoints: list and delete emails, inject and clear faults."""

    async def inject_fault(request: Request) -> JSONResponse:
        try:
            mailbox.faults.add(MailFault.model_validate_json(await request.body()))
        except ValidationError as error:
            return JSONResponse({"message": str(error)}, 422)
        return JSONResponse({}, 201)

    async def clear_faults(_request: Request) -> JSONResponse:
        mailbox.faults.clear()
        return JSONResponse({})

    async def list_emails(request: Request) -> JSONResponse:
        query = request.query_params
        emails = mailbox.store.emails(query.get("recipient"), int(query.get("after", "0")), PAGE_SIZE)
        return JSONResponse(
            {"emails": [{**email, "content": base64.b64encode(email["content"]).decode()} for email in emails]}
        )

    async def empty(_request: Request) -> JSONResponse:
        mailbox.store.empty()
        return JSONResponse({})

    def respond_with(result: Callable[[], object]) -> Callable[[Request], Awaitable[JSONResponse]]:
        async def respond(_request: Request) -> JSONResponse:
            return JSONResponse(result())

        return respond

    return Starlette(
        routes=[
            Route("/healthz", respond_with(lambda: {"smtp_port": smtp_port})),
            Route("/sandbox/faults", inject_fault, methods=["POST"]),
            Route("/sandbox/faults", clear_faults, methods=["DELETE"]),
            Route("/sandbox/emails", list_emails, methods=["GET"]),
            Route("/sandbox/emails", empty, methods=["DELETE"]),
            Route("/sandbox/message-ids", respond_with(mailbox.store.message_ids)),
            Route(
                "/sandbox/totals",
                respond_with(lambda: {"emails": mailbox.store.count(), "connections": mailbox.connections}),
            ),
        ]
    )
