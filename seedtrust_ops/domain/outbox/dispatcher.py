"""Sends the rows that are due in one queue of the outbox: claim a batch, count an attempt, send, record the result.

Each attempt is committed before its row is sent, and each result before the next row is, so that a crash in between
duplicates at most one. What a row is and how it is sent is the sink's business: `email_sink` and `event_sink`.
See docs/decisions/outbox.md.
"""

import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Generic, TypeVar

from sqlalchemy.orm import Session

from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.outbox.queue import Attempt, Claim, Queue, Row

Item = TypeVar("Item")
RecordResult = Callable[[Session], None]


MAX_REFUSED = 20
"""If the first of a delivery are all refused, it ends after this many."""


@dataclass
class DeliveryReport:
    """The counts of one delivery; `withheld` are not meant to be sent any more, `still_due` were not tried."""

    sent: int = 0
    will_retry: int = 0
    failed: int = 0
    withheld: int = 0
    still_due: int = 0
    error: str | None = None
    """Why nothing can be sent at present; None if something can."""


class Withheld(Exception):
    """This row must not be sent; the message says why."""


class Sink(ABC, Generic[Row, Item]):
    """Sends the rows of one queue, one at a time; the four groups of errors say what else may happen.

    Any other error of `send` counts as a deferral: what one row provokes must not hold back the others.
    """

    rejections: tuple[type[Exception], ...] = ()
    """This row will never be accepted as it is; others may be."""
    refusals: tuple[type[Exception], ...] = ()
    """This row was refused, for a reason of its own or because nothing is accepted now: `find_outage` decides."""
    deferrals: tuple[type[Exception], ...] = ()
    """This row was not accepted now; others may be."""
    outages: tuple[type[Exception], ...] = ()
    """Nothing can be sent at present."""

    @abstractmethod
    def load(self, session: Session, row: Row) -> Item:
        """Return what is needed to send the row, in the transaction that counts the attempt; may raise `Withheld`."""

    @abstractmethod
    def send(self, item: Item) -> Mapping[str, Any]:
        """Send one item outside of any transaction; return values for columns of the row that was sent."""

    def find_outage(self, refused: Sequence[tuple[Item, Exception]]) -> str | None:
        """Return why nothing can be sent, if refusals of these items, with nothing accepted, are an outage."""
        return None

    def on_withheld(self, session: Session, row: Row, reason: Withheld) -> None:
        """Called in the transaction that records that the row is not sent, before that."""

    def on_sent(self, session: Session, item: Item, *, is_first: bool) -> None:
        """Called in the transaction that records that the item was sent, the first of this delivery or a later one."""

    def on_failed(self, session: Session, row_id: int) -> None:
        """Called in the transaction that records that the row has failed permanently."""

    def on_outage(self, session: Session, error: str) -> None:
        """Called in the transaction that records an outage, before that."""


def send_due(sessions: Sessions, queue: Queue[Row], sink: Sink[Row, Item], *, max_seconds: float) -> DeliveryReport:
    """Send the rows that are due until none is left or `max_seconds` have passed.

    Any number of dispatchers may run at once. A row that is rejected fails alone. In an outage, an attempt is counted
    for the one row that was being sent and for no other, and the delivery ends. Refusals wait for the end of the
    delivery: if all were refused, it may be an outage, and then no attempt is counted.
    """
    delivery = _Delivery(sessions, queue, sink, monotonic() + max_seconds)
    while not delivery.is_over() and (claim := run_in_transaction(sessions, queue.claim)) is not None:
        delivery.send_claimed(claim)
    if delivery.refused:
        run_in_transaction(sessions, delivery.record_refused)
    delivery.report.still_due = run_in_transaction(sessions, queue.count_due)
    return delivery.report


class _Delivery(Generic[Row, Item]):
    """A delivery in progress."""

    def __init__(self, sessions: Sessions, queue: Queue[Row], sink: Sink[Row, Item], deadline: float) -> None:
        self.sessions = sessions
        self.queue = queue
        self.sink = sink
        self.deadline = deadline
        self.report = DeliveryReport()
        self.refused: list[_Refused[Item]] = []

    def is_over(self) -> bool:
        nothing_accepted = not self.report.sent and len(self.refused) >= MAX_REFUSED
        return self.report.error is not None or nothing_accepted or monotonic() >= self.deadline

    def send_claimed(self, claim: Claim) -> None:
        """Send one batch. The result of a row and the start of the next one are one transaction."""
        record: RecordResult = _record_nothing
        for row_id in claim.row_ids:
            if self.is_over():
                break
            started = run_in_transaction(self.sessions, partial(self.record_and_start, record, claim, row_id))
            if isinstance(started, _NotStarted):
                self.report.withheld += started is _NotStarted.WITHHELD
                self.report.failed += started is _NotStarted.USED_UP
                record = _record_nothing
            else:
                record = self.send(claim, *started)
        run_in_transaction(self.sessions, partial(self.record_and_release, record, claim))

    def record_and_start(
        self, record: RecordResult, claim: Claim, row_id: int, session: Session
    ) -> "tuple[Attempt, Item] | _NotStarted":
        """Record the previous result, and count an attempt at the next row; a row not to be sent is recorded here."""
        record(session)
        locked = self.queue.lock_claimed(session, claim, row_id)
        if locked is None:
            return _NotStarted.CLAIM_LOST
        row, age = locked
        try:
            item = self.sink.load(session, row)
        except Withheld as reason:
            self.sink.on_withheld(session, row, reason)
            self.queue.record_failed(session, row_id, str(reason))
            return _NotStarted.WITHHELD
        if self.queue.retry_policy(row).is_used_up(row.attempts):
            self.fail(row_id, f"All {row.attempts} attempts were interrupted before a result.", session)
            return _NotStarted.USED_UP
        return self.queue.count_attempt(session, row, age), item

    def record_and_release(self, record: RecordResult, claim: Claim, session: Session) -> None:
        """Record the last result, and release what was not tried."""
        record(session)
        self.queue.release(session, claim, keep=[one.attempt.row_id for one in self.refused])

    def send(self, claim: Claim, attempt: Attempt, item: Item) -> RecordResult:
        """Send one item, and return the function that records the result."""
        try:
            values = self.sink.send(item)
        except self.sink.rejections as error:
            self.report.failed += 1
            return partial(self.fail, attempt.row_id, str(error))
        except self.sink.refusals as error:
            self.refused.append(_Refused(claim, attempt, item, error))
            return _record_nothing
        except self.sink.deferrals as error:
            return self.defer(claim, attempt, str(error))
        except self.sink.outages as error:
            self.report.error = str(error)
            return partial(self.record_outage, str(error), self.defer(claim, attempt, str(error)))
        except Exception as error:  # noqa: BLE001  Whatever one row provokes must not hold back the others.
            return self.defer(claim, attempt, _describe_unexpected(error))
        self.report.sent += 1
        return partial(self.record_success, attempt, item, values, self.report.sent == 1)

    def record_refused(self, session: Session) -> None:
        """Record what was refused: each row failed, unless all refusals together are an outage."""
        if not self.report.sent and self.report.error is None:
            self.report.error = self.sink.find_outage([(one.item, one.error) for one in self.refused])
            if self.report.error is not None:
                self.sink.on_outage(session, self.report.error)
        if not self.report.sent and self.report.error is not None:
            self.report.will_retry += len(self.refused)
            for one in self.refused:
                self.queue.record_uncounted(session, one.claim, one.attempt, str(one.error))
        else:
            self.report.failed += len(self.refused)
            for one in self.refused:
                self.fail(one.attempt.row_id, str(one.error), session)

    def defer(self, claim: Claim, attempt: Attempt, error: str) -> RecordResult:
        """Count a failed attempt, and return the function that records it: to be retried, or failed if the last."""
        if attempt.retry_after is None:
            self.report.failed += 1
            return partial(self.fail, attempt.row_id, f"{error} This was attempt {attempt.number}, the last one.")
        self.report.will_retry += 1
        return lambda session: self.queue.record_retry(session, claim, attempt, error)

    def fail(self, row_id: int, error: str, session: Session) -> None:
        if self.queue.record_failed(session, row_id, error):
            self.sink.on_failed(session, row_id)

    def record_outage(self, error: str, record_attempt: RecordResult, session: Session) -> None:
        self.sink.on_outage(session, error)
        record_attempt(session)

    def record_success(
        self, attempt: Attempt, item: Item, values: Mapping[str, Any], is_first: bool, session: Session
    ) -> None:
        self.queue.record_sent(session, attempt.row_id, values)
        self.sink.on_sent(session, item, is_first=is_first)


@dataclass(frozen=True)
class _Refused(Generic[Item]):
    """An item that was refused; what that means is known at the end of the delivery."""

    claim: Claim
    attempt: Attempt
    item: Item
    error: Exception


class _NotStarted(Enum):
    """Why a claimed row is not sent."""

    CLAIM_LOST = "another dispatcher has claimed or sent it, or another transaction has locked it"
    WITHHELD = "it is not meant to be sent any more"
    USED_UP = "dispatchers that crashed used up its attempts"


def _record_nothing(_session: Session) -> None:
    return None


def _describe_unexpected(error: Exception) -> str:
    """Return the error's type and place, without its text, which may contain personal data."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}, an unexpected error, in {Path(place.filename).name}, line {place.lineno}."
