"""The email port: the protocol and errors shared by `domain/outbox`, which queues emails, and `resources/smtp`.

It contains no SMTP code and no SQL.
"""

from email.message import Message
from typing import Protocol

from seedtrust_ops.errors import TransientError


class EmailRejected(Exception):
    """The mail server refused this email for good (5xx): the address is unknown, the email is too large.

    `is_of_relay` is whether the reply speaks of the server rather than of this email, such as "relay access denied".
    """

    def __init__(self, message: str, *, is_of_relay: bool = False) -> None:
        super().__init__(message)
        self.is_of_relay = is_of_relay


class EmailDeferred(Exception):
    """This email was not accepted now, or its response was lost; other emails may still go out."""


class MailServerUnavailable(TransientError):
    """No email can be sent at present: the mail server is down or rejects our login."""


class EmailTransport(Protocol):
    """A connection to a mail server."""

    @property
    def sender(self) -> str:
        """The value of the From header."""
        ...

    def send(self, message: Message) -> None:
        """Send one email; it is the mail server's responsibility once this returns.

        Raises:
            EmailRejected: this email was refused; so may be all others.
            EmailDeferred: it was not accepted now, or the response was lost.
            MailServerUnavailable: no email can be sent now.
        """
        ...
