"""Sends events to PostHog, the internal API and chat services through `ports.events`; their clients are in `resources`.

An event can be sent twice: with the same key and time, by which PostHog drops the duplicate.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from seedtrust_ops.domain.db_transaction import Sessions
from seedtrust_ops.domain.outbox.dispatcher import DeliveryReport, Sink, send_due
from seedtrust_ops.domain.outbox.queue import Queue, RetryPolicy
from seedtrust_ops.domain.outbox.store import Destination
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.ports.events import EventDeferred, EventRejected, EventSink
from seedtrust_ops.tables import OutgoingEvent

EVENT_RETRIES = RetryPolicy(
    first_delay=timedelta(seconds=15), backoff_factor=2, max_delay=timedelta(hours=1), max_age=timedelta(days=1)
)
"""Events are retried after 15 seconds, then twice as long each time up to an hour, for a day."""
EVENT_CLAIM_DURATION = timedelta(minutes=2)

OnAccepted = Callable[[Session, Mapping[str, Any], datetime], None]
"""Called in the transaction that records that an event was sent, with its body and when it was queued (aware)."""


def send_due_events(
    sessions: Sessions,
    destination: Destination,
    sink: EventSink,
    *,
    max_seconds: float,
    on_accepted: OnAccepted | None = None,
) -> DeliveryReport:
    """Send the events that are due for one destination, oldest first, until none is left or `max_seconds` have passed.

    A rejected event fails at once and delays no other. An event whose attempt fails a day after it was queued has
    failed for good; the reason stays in its row. `on_accepted` is called for each event that was accepted.
    """
    queue = Queue(
        OutgoingEvent,
        [OutgoingEvent.destination == destination.value],
        retry_policy=lambda _event: EVENT_RETRIES,
        claim_duration=EVENT_CLAIM_DURATION,
    )
    return send_due(sessions, queue, _DestinationSink(sink, on_accepted), max_seconds=max_seconds)


@dataclass(frozen=True)
class _DueEvent:
    dedupe_key: str
    body: Mapping[str, Any]
    created_at: datetime


class _DestinationSink(Sink[OutgoingEvent, _DueEvent]):
    """Sends the events of one destination."""

    rejections = (EventRejected,)
    deferrals = (EventDeferred,)
    outages = (SeedTrustError,)

    def __init__(self, sink: EventSink, on_accepted: OnAccepted | None) -> None:
        self._sink = sink
        self._on_accepted = on_accepted

    def load(self, session: Session, row: OutgoingEvent) -> _DueEvent:
        return _DueEvent(row.dedupe_key, row.body, row.created_at)

    def send(self, item: _DueEvent) -> Mapping[str, Any]:
        self._sink.send(item.dedupe_key, item.body, item.created_at)
        return {}

    def on_sent(self, session: Session, item: _DueEvent, *, is_first: bool) -> None:
        if self._on_accepted is not None:
            self._on_accepted(session, item.body, item.created_at)
