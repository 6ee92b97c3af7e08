"""What is to be told to PostHog and the internal API: queued in the transaction that causes it, delivered later.

So that neither of them, slow or down, can delay or fail a job. How each is spoken to is its resource's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Text, select
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Session

from seedtrust_ops.domain.sql_arrays import array_table
from seedtrust_ops.tables import OutgoingEvent


class Destination(StrEnum):
    """Whom an event is for."""

    POSTHOG = "posthog"
    INTERNAL_API = "internal_api"


@dataclass(frozen=True)
class Event:
    """One thing to tell; the same `dedupe_key` is told once. `body` holds no personal data."""

    destination: Destination
    dedupe_key: str
    body: dict[str, Any]


def queue_events(session: Session, events: Sequence[Event]) -> None:
    """Queue `events`, in the caller's transaction; one whose key was queued before changes nothing."""
    if not events:
        return
    news = array_table(
        "news",
        [("destination", Text()), ("dedupe_key", Text()), ("body", JSONB())],
        [(event.destination.value, event.dedupe_key, event.body) for event in events],
    )
    session.execute(
        insert(OutgoingEvent)
        .from_select(["destination", "dedupe_key", "body"], select(*news.c))
        .on_conflict_do_nothing(index_elements=[OutgoingEvent.dedupe_key])
    )
