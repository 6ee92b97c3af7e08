"""Delivers what waits in `ops.outgoing_events`: claim some, hand each in, record what became of them.

A claim is a time until which nobody else takes the event. Whoever dies with events in hand leaves them to the next,
so one can be handed in twice: it bears the same key and time again, by which PostHog drops the second.
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
from seedtrust_ops.ports.events import EventRefused, EventSink
from seedtrust_ops.tables import OutgoingEvent

KEPT = timedelta(days=90)
"""What was delivered or given up is deleted after so long; until then its key is not queued again."""
DELETED_AT_ONCE = 10_000


@dataclass(frozen=True)
class EventPatience:
    """How events are tried again: 15 seconds, then twice as long each time up to an hour, for a day."""

    first_pause: timedelta = timedelta(seconds=15)
    longest_pause: timedelta = timedelta(hours=1)
    given_up_after: timedelta = timedelta(days=1)
    hold: timedelta = timedelta(minutes=2)
    group: int = 50

    def pause(self, attempts: int) -> timedelta:
        """Return how long to wait after so many attempts."""
        return min(self.longest_pause, self.first_pause * int(2 ** min(attempts - 1, 20)))


@dataclass
class EventsReport:
    """What a delivery to one destination came to."""

    sent: int = 0
    refused: int = 0
    trouble: str | None = None
    """Why the destination takes nothing at present, None where it does."""


@dataclass(frozen=True)
class _Claimed:
    id: int
    dedupe_key: str
    body: dict[str, Any]
    created_at: datetime
    attempts: int


@dataclass
class _Outcomes:
    sent: list[int] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    postponed: tuple[_Claimed, str] | None = None
    untried: list[int] = field(default_factory=list)


def deliver_events(
    sessions: Sessions,
    destination: Destination,
    taker: EventSink,
    *,
    patience: EventPatience | None = None,
    longest_seconds: float,
) -> EventsReport:
    """Hand in what is due for one destination, oldest first, until nothing is or `longest_seconds` have passed.

    An event that is refused is given up at once and holds up no other. Where the destination takes nothing, the one
    event that found out has had an attempt and the others have not. An event whose attempt fails a day after it was
    queued is given up; why stays in its row.
    """
    patience = patience or EventPatience()
    report = EventsReport()
    end = monotonic() + longest_seconds
    while monotonic() < end and report.trouble is None:
        claimed = run_in_transaction(sessions, partial(_claim, destination=destination, patience=patience))
        if not claimed:
            break
        outcomes = _hand_in(claimed, taker, end)
        run_in_transaction(sessions, partial(_record, outcomes=outcomes, patience=patience))
        report.sent += len(outcomes.sent)
        report.refused += len(outcomes.refused)
        report.trouble = outcomes.postponed[1] if outcomes.postponed else None
    return report


def abandon_all(session: Session, destination: Destination, reason: str) -> int:
    """Give up whatever waits for a destination that is switched off; return how many events that are."""
    given_up = session.execute(
        update(OutgoingEvent)
        .where(OutgoingEvent.destination == destination.value, *_waits())
        .values(abandoned_at=func.now(), last_error=reason)
        .returning(OutgoingEvent.id)
    )
    return len(given_up.all())


def purge_events(session: Session) -> int:
    """Delete what was delivered or given up and is older than KEPT, DELETED_AT_ONCE at most; return how many."""
    old = (
        select(OutgoingEvent.id)
        .where(
            OutgoingEvent.created_at < func.now() - KEPT,
            OutgoingEvent.sent_at.is_not(None) | OutgoingEvent.abandoned_at.is_not(None),
        )
        .order_by(OutgoingEvent.id)
        .limit(DELETED_AT_ONCE)
    )
    deleted = session.execute(delete(OutgoingEvent).where(OutgoingEvent.id.in_(old)).returning(OutgoingEvent.id))
    return len(deleted.all())


def _waits() -> tuple[Any, ...]:
    return OutgoingEvent.sent_at.is_(None), OutgoingEvent.abandoned_at.is_(None)


def _claim(session: Session, destination: Destination, patience: EventPatience) -> list[_Claimed]:
    due = (
        select(OutgoingEvent.id)
        .where(OutgoingEvent.destination == destination.value, *_waits(), OutgoingEvent.next_attempt_at <= func.now())
        .order_by(OutgoingEvent.next_attempt_at, OutgoingEvent.id)
        .limit(patience.group)
        .with_for_update(skip_locked=True)
    )
    rows = session.execute(
        update(OutgoingEvent)
        .where(OutgoingEvent.id.in_(due))
        .values(next_attempt_at=func.now() + patience.hold, attempts=OutgoingEvent.attempts + 1)
        .returning(
            OutgoingEvent.id,
            OutgoingEvent.dedupe_key,
            OutgoingEvent.body,
            OutgoingEvent.created_at,
            OutgoingEvent.attempts,
        )
    )
    return sorted((_Claimed(*row) for row in rows), key=lambda event: event.id)


def _hand_in(claimed: Collection[_Claimed], taker: EventSink, end: float) -> _Outcomes:
    outcomes = _Outcomes()
    for event in claimed:
        if outcomes.postponed is not None or monotonic() >= end:
            outcomes.untried.append(event.id)
            continue
        try:
            taker.take(event.dedupe_key, event.body, event.created_at)
        except EventRefused as error:
            outcomes.refused.append((event.id, str(error)))
        except SeedTrustError as error:
            outcomes.postponed = (event, str(error))
        else:
            outcomes.sent.append(event.id)
    return outcomes


def _record(session: Session, outcomes: _Outcomes, patience: EventPatience) -> None:
    change = update(OutgoingEvent)
    if outcomes.sent:
        session.execute(
            change.where(in_array(OutgoingEvent.id, outcomes.sent)).values(sent_at=func.now(), last_error=None)
        )
    if outcomes.refused:
        refused = array_table("refused", [("id", BigInteger()), ("reason", Text())], outcomes.refused)
        session.execute(
            change.where(OutgoingEvent.id == refused.c.id, OutgoingEvent.sent_at.is_(None)).values(
                abandoned_at=func.now(), last_error=refused.c.reason
            )
        )
    if outcomes.postponed is not None:
        event, trouble = outcomes.postponed
        is_too_old = OutgoingEvent.created_at < func.now() - patience.given_up_after
        session.execute(
            change.where(OutgoingEvent.id == event.id, *_waits()).values(
                last_error=trouble,
                next_attempt_at=func.now() + patience.pause(event.attempts),
                abandoned_at=case((is_too_old, func.now())),
            )
        )
    if outcomes.untried:
        session.execute(
            change.where(in_array(OutgoingEvent.id, outcomes.untried), *_waits()).values(
                next_attempt_at=func.now(), attempts=OutgoingEvent.attempts - 1
            )
        )
