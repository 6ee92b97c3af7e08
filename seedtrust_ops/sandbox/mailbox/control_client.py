"""A Python client for the control endpoints of the sandbox's mail server, for tests and the demo.

It does not send emails: production's client does that over SMTP and never calls /sandbox.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from functools import cached_property
from typing import Any, TypedDict

import httpx

from seedtrust_ops.sandbox.bank.control_client import NO_CERTIFICATES
from seedtrust_ops.sandbox.mailbox.faults import MailFault, MailFaultKind


@dataclass(frozen=True)
class ReceivedEmail:
    """An email as the server received it, for one recipient; `at` is UTC ISO 8601."""

    id: int
    at: str
    sender: str
    recipient: str
    message_id: str
    content: bytes

    @cached_property
    def message(self) -> EmailMessage:
        """The parsed email."""
        return message_from_bytes(self.content, policy=policy.default)

    @property
    def subject(self) -> str:
        """Its subject line."""
        return str(self.message["Subject"])

    @property
    def text(self) -> str:
        """Its plain-text body."""
        return self._body("plain")

    @property
    def html(self) -> str:
        """Its HTML body."""
        return self._body("html")

    @property
    def attachments(self) -> dict[str, bytes]:
        """Its attachments by file name."""
        return {
            str(part.get_filename()): bytes(part.get_payload(decode=True)) for part in self.message.iter_attachments()
        }

    def _body(self, kind: str) -> str:
        part = self.message.get_body((kind,))
        return "" if part is None else str(part.get_content()).replace("\r\n", "\n")


class MailboxTotals(TypedDict):
    """The number of stored emails, and of connections since the server started."""

    emails: int
    connections: int


class SandboxMailbox:
    """Client of the mail server's control endpoints at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=30.0, trust_env=False, verify=NO_CERTIFICATES)

    def close(self) -> None:
        """Close this client's connections; the server keeps running."""
        self._client.close()

    def smtp_port(self) -> int:
        """The SMTP port on loopback."""
        return int(self._get("/healthz")["smtp_port"])

    def emails(self, recipient: str | None = None) -> list[ReceivedEmail]:
        """Every stored email, oldest first; only those to `recipient` if it is given."""
        return list(self._pages(recipient))

    def message_ids(self) -> list[tuple[str, str]]:
        """Recipient and Message-ID of every email, oldest first, without the content."""
        return [(recipient, message_id) for recipient, message_id in self._get("/sandbox/message-ids")]

    def totals(self) -> MailboxTotals:
        """The counts, without the emails."""
        totals: MailboxTotals = self._get("/sandbox/totals")
        return totals

    def inject_fault(
        self,
        kind: MailFaultKind,
        *,
        recipient: str | None = None,
        times: int | None = 1,
        skip: int = 0,
        seconds: float = 1.0,
    ) -> None:
        """Inject a fault for the next `times` emails (None: until cleared), after letting `skip` emails through.

        With `recipient`, only emails to that address count.
        """
        fault = MailFault(kind=kind, recipient=recipient, times=times, skip=skip, seconds=seconds)
        self._client.post("/sandbox/faults", content=fault.model_dump_json()).raise_for_status()

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._client.delete("/sandbox/faults").raise_for_status()

    def empty(self) -> None:
        """Delete all emails."""
        self._client.delete("/sandbox/emails").raise_for_status()

    def _pages(self, recipient: str | None) -> Iterator[ReceivedEmail]:
        after = 0
        while True:
            query = {"after": str(after)} | ({"recipient": recipient} if recipient is not None else {})
            page = self._get("/sandbox/emails", query)["emails"]
            if not page:
                return
            for entry in page:
                yield ReceivedEmail(**{**entry, "content": base64.b64decode(entry["content"])})
            after = page[-1]["id"]

    def _get(self, path: str, query: dict[str, str] | None = None) -> Any:
        response = self._client.get(path, params=query)
        response.raise_for_status()
        return response.json()
