"""What the post says of a letter: the words that those who write letters and those who carry them share.

It knows neither SMTP nor the outbox.
"""

from email.message import Message
from typing import Protocol

from seedtrust_ops.errors import TransientError


class EmailRejected(Exception):
    """This letter will never be taken as it is: the address is unknown, or the letter is too large."""


class EmailDeferred(Exception):
    """This letter was not taken now, or nobody knows whether it was; others may still go."""


class MailServerUnavailable(TransientError):
    """No letter can be handed in at present: the server is down, or does not let us in."""


class EmailTransport(Protocol):
    """Where letters are handed in."""

    @property
    def sender(self) -> str:
        """Who letters are from, as the From line says it."""
        ...

    def send(self, letter: Message) -> None:
        """Hand in one letter, or raise one of the words of `post`."""
        ...
