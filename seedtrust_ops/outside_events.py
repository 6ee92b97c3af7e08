"""What those who take events say of one: the words that the outbox of events and the resources share.

It knows neither PostHog's nor the internal API's way of speaking.
"""

from seedtrust_ops.errors import OperationsError, PassingTrouble


class EventRefused(Exception):
    """This event will never be taken as it is; others may be."""


class PostHogRefused(OperationsError):
    """PostHog does not know our project's key."""


class PostHogUnreachable(PassingTrouble):
    """PostHog gave no good answer."""
