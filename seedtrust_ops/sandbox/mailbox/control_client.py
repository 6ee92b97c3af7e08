"""A Python client for the control endpoints of the sandbox's mail server, for tests and the demo.

It is not the client that sends letters: that one speaks SMTP and knows nothing of /sandbox.
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
from seedtrust_ops.sandbox.mailbox.faults import Order, Trouble


@dataclass(frozen=True)
class KeptLetter:
    """A letter as the server took it, to one recipient; `at` is UTC ISO 8601."""

    id: int
    at: str
    sender: str
    recipient: str
    message_id: str
    content: bytes

    @cached_property
    def message(self) -> EmailMessage:
        """The letter, read."""
        return message_from_bytes(self.content, policy=policy.default)

    @property
    def subject(self) -> str:
        """Its subject line."""
        return str(self.message["Subject"])

    @property
    def text(self) -> str:
        """Its plain text."""
        return self._body("plain")

    @property
    def html(self) -> str:
        """Its HTML."""
        return self._body("html")

    @property
    def attachments(self) -> dict[str, bytes]:
        """The files that came with it, by name."""
        return {
            str(part.get_filename()): bytes(part.get_payload(decode=True)) for part in self.message.iter_attachments()
        }

    def _body(self, kind: str) -> str:
        part = self.message.get_body((kind,))
        return "" if part is None else str(part.get_content()).replace("\r\n", "\n")


class MailTotals(TypedDict):
    """How many letters are kept, and how often somebody connected since the server started."""

    letters: int
    connections: int


class SandboxMailbox:
    """The control side of the mail server at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=30.0, trust_env=False, verify=NO_CERTIFICATES)

    def close(self) -> None:
        """Close the connections to the control; the server goes on."""
        self._client.close()

    def smtp_port(self) -> int:
        """The port on loopback at which it takes letters."""
        return int(self._get("/healthz")["smtp_port"])

    def letters(self, recipient: str | None = None) -> list[KeptLetter]:
        """Every letter that is kept, oldest first; to one recipient where one is given."""
        return list(self._pages(recipient))

    def message_ids(self) -> list[tuple[str, str]]:
        """Recipient and Message-ID of every letter, oldest first, without the letters themselves."""
        return [(recipient, message_id) for recipient, message_id in self._get("/sandbox/message-ids")]

    def totals(self) -> MailTotals:
        """Counts, without the letters."""
        totals: MailTotals = self._get("/sandbox/totals")
        return totals

    def order(
        self,
        trouble: Trouble,
        *,
        recipient: str | None = None,
        times: int | None = 1,
        skip: int = 0,
        seconds: float = 1.0,
    ) -> None:
        """Order trouble for the next `times` letters (None: until cleared) after `skip`, or those to one recipient."""
        order = Order(trouble=trouble, recipient=recipient, times=times, skip=skip, seconds=seconds)
        self._client.post("/sandbox/orders", content=order.model_dump_json()).raise_for_status()

    def clear_orders(self) -> None:
        """End all trouble."""
        self._client.delete("/sandbox/orders").raise_for_status()

    def empty(self) -> None:
        """Throw all letters away."""
        self._client.delete("/sandbox/letters").raise_for_status()

    def _pages(self, recipient: str | None) -> Iterator[KeptLetter]:
        after = 0
        while True:
            query = {"after": str(after)} | ({"recipient": recipient} if recipient is not None else {})
            page = self._get("/sandbox/letters", query)["letters"]
            if not page:
                return
            for one in page:
                yield KeptLetter(**{**one, "content": base64.b64decode(one["content"])})
            after = page[-1]["id"]

    def _get(self, path: str, query: dict[str, str] | None = None) -> Any:
        answer = self._client.get(path, params=query)
        answer.raise_for_status()
        return answer.json()
