"""The event outbox: events for PostHog and the internal API, queued in the transaction that causes them, sent later.

If either service is slow or down, no job is delayed or fails. The protocols of both are in `resources`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Text, func, select, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Session

from seedtrust_ops.domain.sql_arrays import array_table, in_array
from seedtrust_ops.tables import OutgoingEvent


class Destination(StrEnum):
    """The service that an event is sent to."""

    POSTHOG = "posthog"
    INTERNAL_API = "internal_api"


@dataclass(frozen=True)
class Event:
    """One event; a `dedupe_key` is sent once. `body` contains no personal data."""

    destination: Destination
    dedupe_key: str
    body: dict[str, Any]


def enqueue_events(session: Session, events: Sequence[Event]) -> None:
    """Queue `events` in the caller's transaction; one whose `dedupe_key` exists changes nothing."""
    if not events:
        return
    new_rows = array_table(
        "events",
        [("destination", Text()), ("dedupe_key", Text()), ("body", JSONB())],
        [(event.destination.value, event.dedupe_key, event.body) for event in events],
    )
    session.execute(
        insert(OutgoingEvent)
        .from_select(["destination", "dedupe_key", "body"], select(*new_rows.c))
        .on_conflict_do_nothing(index_elements=[OutgoingEvent.dedupe_key])
    )


def requeue_events(session: Session, ids: Sequence[int]) -> None:
    """Queue these events again if they were abandoned; one that is over a day old gets a single attempt."""
    session.execute(
        update(OutgoingEvent)
        .where(in_array(OutgoingEvent.id, ids), OutgoingEvent.abandoned_at.is_not(None))
        .values(abandoned_at=None, next_attempt_at=func.now())
    )
