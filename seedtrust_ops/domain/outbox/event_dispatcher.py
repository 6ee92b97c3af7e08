"""Sends the events waiting in `ops.outgoing_events`: claim a batch, send each event, record the results.

A claim is a time until which no other dispatcher takes the event. If a dispatcher crashes, the next one takes its
events, so an event can be sent twice: with the same key and time, by which PostHog drops the duplicate.
See docs/decisions/outbox.md.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any

from sqlalchemy import BigInteger, Text, case, delete, func, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.outbox.event_store import Destination
from seedtrust_ops.domain.sql_arrays import array_table, in_array
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.ports.events import EventRejected, EventSink
from seedtrust_ops.tables import OutgoingEvent

RETENTION = timedelta(days=90)
"""Sent and abandoned events are deleted after this time; until then their keys are not queued again."""
MAX_PURGED_PER_CALL = 10_000


@dataclass(frozen=True)
class EventRetryPolicy:
    """When a failed attempt is repeated: after 15 seconds, then twice as long each time up to an hour, for a day."""

    first_delay: timedelta = timedelta(seconds=15)
    max_delay: timedelta = timedelta(hours=1)
    abandon_after: timedelta = timedelta(days=1)
    claim_duration: timedelta = timedelta(minutes=2)
    batch_size: int = 50

    def delay(self, attempts: int) -> timedelta:
        """Return the delay after this many attempts."""
        return min(self.max_delay, self.first_delay * int(2 ** min(attempts - 1, 20)))


@dataclass
class EventDeliveryReport:
    """The counts of one delivery to one destination."""

    sent: int = 0
    rejected: int = 0
    error: str | None = None
    """Why the destination accepts no events at present; None if it does."""


@dataclass(frozen=True)
class _ClaimedEvent:
    id: int
    dedupe_key: str
    body: dict[str, Any]
    created_at: datetime
    attempts: int


@dataclass
class _Outcomes:
    sent: list[int] = field(default_factory=list)
    rejected: list[tuple[int, str]] = field(default_factory=list)
    deferred: tuple[_ClaimedEvent, str] | None = None
    not_tried: list[int] = field(default_factory=list)


def send_due_events(
    sessions: Sessions,
    destination: Destination,
    sink: EventSink,
    *,
    retry_policy: EventRetryPolicy | None = None,
    max_seconds: float,
) -> EventDeliveryReport:
    """Send the events that are due for one destination, oldest first, until none is left or `max_seconds` have passed.

    A rejected event is abandoned at once and delays no other. If the destination accepts nothing, an attempt is
    counted for the one event that was being sent and for no other. An event whose attempt fails a day after it was
    queued is abandoned; the reason stays in its row.
    """
    retry_policy = retry_policy or EventRetryPolicy()
    report = EventDeliveryReport()
    deadline = monotonic() + max_seconds
    while monotonic() < deadline and report.error is None:
        claimed = run_in_transaction(sessions, partial(_claim, destination=destination, retry_policy=retry_policy))
        if not claimed:
            break
        outcomes = _send(claimed, sink, deadline)
        run_in_transaction(sessions, partial(_record, outcomes=outcomes, retry_policy=retry_policy))
        report.sent += len(outcomes.sent)
        report.rejected += len(outcomes.rejected)
        report.error = outcomes.deferred[1] if outcomes.deferred else None
    return report


def abandon_all(session: Session, destination: Destination, reason: str) -> int:
    """Abandon every event waiting for a destination that is not configured; return how many."""
    abandoned = session.execute(
        update(OutgoingEvent)
        .where(OutgoingEvent.destination == destination.value, *_is_waiting())
        .values(abandoned_at=func.now(), last_error=reason)
        .returning(OutgoingEvent.id)
    )
    return len(abandoned.all())


def purge_events(session: Session) -> int:
    """Delete sent and abandoned events older than RETENTION, at most MAX_PURGED_PER_CALL; return how many."""
    expired = (
        select(OutgoingEvent.id)
        .where(
            OutgoingEvent.created_at < func.now() - RETENTION,
            OutgoingEvent.sent_at.is_not(None) | OutgoingEvent.abandoned_at.is_not(None),
        )
        .order_by(OutgoingEvent.id)
        .limit(MAX_PURGED_PER_CALL)
    )
    deleted = session.execute(delete(OutgoingEvent).where(OutgoingEvent.id.in_(expired)).returning(OutgoingEvent.id))
    return len(deleted.all())


def _is_waiting() -> tuple[Any, ...]:
    return OutgoingEvent.sent_at.is_(None), OutgoingEvent.abandoned_at.is_(None)


def _claim(session: Session, destination: Destination, retry_policy: EventRetryPolicy) -> list[_ClaimedEvent]:
    due = (
        select(OutgoingEvent.id)
        .where(
            OutgoingEvent.destination == destination.value, *_is_waiting(), OutgoingEvent.next_attempt_at <= func.now()
        )
        .order_by(OutgoingEvent.next_attempt_at, OutgoingEvent.id)
        .limit(retry_policy.batch_size)
        .with_for_update(skip_locked=True)
    )
    rows = session.execute(
        update(OutgoingEvent)
        .where(OutgoingEvent.id.in_(due))
        .values(next_attempt_at=func.now() + retry_policy.claim_duration, attempts=OutgoingEvent.attempts + 1)
        .returning(
            OutgoingEvent.id,
            OutgoingEvent.dedupe_key,
            OutgoingEvent.body,
            OutgoingEvent.created_at,
            OutgoingEvent.attempts,
        )
    )
    return sorted((_ClaimedEvent(*row) for row in rows), key=lambda event: event.id)


def _send(claimed: Collection[_ClaimedEvent], sink: EventSink, deadline: float) -> _Outcomes:
    outcomes = _Outcomes()
    for event in claimed:
        if outcomes.deferred is not None or monotonic() >= deadline:
            outcomes.not_tried.append(event.id)
            continue
        try:
            sink.send(event.dedupe_key, event.body, event.created_at)
        except EventRejected as error:
            outcomes.rejected.append((event.id, str(error)))
        except SeedTrustError as error:
            outcomes.deferred = (event, str(error))
        else:
            outcomes.sent.append(event.id)
    return outcomes


def _record(session: Session, outcomes: _Outcomes, retry_policy: EventRetryPolicy) -> None:
    change = update(OutgoingEvent)
    if outcomes.sent:
        session.execute(
            change.where(in_array(OutgoingEvent.id, outcomes.sent)).values(sent_at=func.now(), last_error=None)
        )
    if outcomes.rejected:
        rejected = array_table("rejected", [("id", BigInteger()), ("reason", Text())], outcomes.rejected)
        session.execute(
            change.where(OutgoingEvent.id == rejected.c.id, OutgoingEvent.sent_at.is_(None)).values(
                abandoned_at=func.now(), last_error=rejected.c.reason
            )
        )
    if outcomes.deferred is not None:
        event, error = outcomes.deferred
        is_too_old = OutgoingEvent.created_at < func.now() - retry_policy.abandon_after
        session.execute(
            change.where(OutgoingEvent.id == event.id, *_is_waiting()).values(
                last_error=error,
                next_attempt_at=func.now() + retry_policy.delay(event.attempts),
                abandoned_at=case((is_too_old, func.now())),
            )
        )
    if outcomes.not_tried:
        session.execute(
            change.where(in_array(OutgoingEvent.id, outcomes.not_tried), *_is_waiting()).values(
                next_attempt_at=func.now(), attempts=OutgoingEvent.attempts - 1
            )
        )
