"""The event port: the protocol and errors shared by `domain/outbox` and the clients that send events.

It contains nothing specific to PostHog's or the internal API's protocol.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from seedtrust_ops.errors import SeedTrustError, TransientError


class EventRejected(Exception):
    """This event will never be accepted as it is; others may be."""


class EventDeferred(Exception):
    """This event was not accepted now; it will be retried, and others may be accepted meanwhile."""


class PostHogRejected(SeedTrustError):
    """PostHog rejected our project key."""


class PostHogUnavailable(TransientError):
    """PostHog did not respond, or responded with an error."""


class EventSink(Protocol):
    """Sends the events of one destination."""

    def send(self, dedupe_key: str, body: Mapping[str, Any], at: datetime) -> None:
        """Send one event.

        Args:
            dedupe_key: identifies the event; a second send with the same key is a duplicate.
            body: the event's content, from which the client builds its request.
            at: when it happened (aware).

        Raises:
            EventRejected: this event will never be accepted.
            EventDeferred: this event was not accepted now.
            SeedTrustError: no event can be sent at present; the message says why.
        """
        ...
