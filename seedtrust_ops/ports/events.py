"""What those who take events say of one: the words that the outbox of events and the resources share.

It knows neither PostHog's nor the internal API's way of speaking.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from seedtrust_ops.errors import SeedTrustError, TransientError


class EventRefused(Exception):
    """This event will never be taken as it is; others may be."""


class PostHogRefused(SeedTrustError):
    """PostHog does not know our project's key."""


class PostHogUnreachable(TransientError):
    """PostHog gave no good answer."""


class EventSink(Protocol):
    """Who takes the events of one destination."""

    def take(self, dedupe_key: str, body: Mapping[str, Any], at: datetime) -> None:
        """Take one event, which happened `at`.

        Raises:
            EventRefused: this one will never be taken.
            SeedTrustError: none is taken at present, with a sentence that says why.
        """
        ...
