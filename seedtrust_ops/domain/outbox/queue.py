"""One table of the outbox as a queue: claims due rows, counts attempts, and records the result of each.

A claim is a token and a time, so that two dispatchers never hold the same row. If a dispatcher crashes, another one may
claim its rows once that time has passed; one that was suspended past it finds that it no longer holds any.
"""

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, false, func, or_, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.tables import OutboxRow

Row = TypeVar("Row", bound=OutboxRow)

QUEUED, SENT, FAILED = "queued", "sent", "failed"
MIN_DELAY = timedelta(minutes=1)


@dataclass(frozen=True)
class RetryPolicy:
    """How soon a failed attempt is repeated, and which attempt is the last.

    The delay grows by `backoff_factor` up to `max_delay`. The last attempt is number `max_attempts`, or the first that
    starts `max_age` after the row was queued.
    """

    first_delay: timedelta
    backoff_factor: int
    max_delay: timedelta = timedelta(days=1)
    max_attempts: int | None = None
    max_age: timedelta | None = None

    def delay(self, attempts: int) -> timedelta:
        """Return the delay after this many attempts."""
        return min(self.max_delay, self.first_delay * int(self.backoff_factor ** min(attempts - 1, 20)))

    def is_used_up(self, attempts: int) -> bool:
        """Return whether no attempt is left after this many."""
        return self.max_attempts is not None and attempts >= self.max_attempts

    def is_last(self, attempt: int, age: timedelta) -> bool:
        """Return whether the attempt with this number, at a row of this age, is the last one."""
        return self.is_used_up(attempt) or (self.max_age is not None and age >= self.max_age)


@dataclass(frozen=True)
class Claim:
    """Rows that only this dispatcher may try until the claim expires."""

    token: str
    row_ids: Sequence[int]


@dataclass(frozen=True)
class Attempt:
    """One attempt at one row; `retry_after` is the delay if it fails, None if it is the last."""

    row_id: int
    number: int
    retry_after: timedelta | None


@dataclass(frozen=True)
class Queue(Generic[Row]):
    """The rows of one table that one dispatcher sends.

    `lanes` are conditions: a batch is claimed from the first lane that has due rows. `claim_duration` must be longer
    than sending one row can take, because no other dispatcher tries the row during that time.
    """

    table: type[Row]
    lanes: Sequence[ColumnElement[bool]]
    retry_policy: Callable[[Row], RetryPolicy]
    claim_duration: timedelta
    batch_size: int = 50

    def count_due(self, session: Session) -> int:
        """Return how many rows are due now: new ones, and those whose retry is due."""
        in_lanes = or_(false(), *self.lanes)
        return session.scalar(select(func.count(self.table.id)).where(*is_due(self.table), in_lanes)) or 0

    def claim(self, session: Session) -> Claim | None:
        """Claim a batch of due rows; return None if none is due."""
        for lane in self.lanes:
            ids = session.scalars(
                select(self.table.id)
                .where(*is_due(self.table), lane)
                .order_by(self.table.next_attempt_at, self.table.id)
                .limit(self.batch_size)
                .with_for_update(skip_locked=True)
            ).all()
            if ids:
                claim = Claim(secrets.token_hex(8), ids)
                session.execute(
                    update(self.table)
                    .where(self.table.id.in_(ids))
                    .values(claim_token=claim.token, next_attempt_at=func.now() + self.claim_duration)
                )
                return claim
        return None

    def lock_claimed(self, session: Session, claim: Claim, row_id: int) -> tuple[Row, timedelta] | None:
        """Lock a claimed row and return it with its age; return None if its claim was lost or another has locked it."""
        locked = session.execute(
            select(self.table, func.now())
            .where(self.table.id == row_id, *self._is_held(claim))
            .with_for_update(of=self.table, skip_locked=True)
        ).one_or_none()
        return None if locked is None else (locked[0], locked[1] - locked[0].created_at)

    def count_attempt(self, session: Session, row: Row, age: timedelta) -> Attempt:
        """Count an attempt at a locked row of this age and extend the claim on it; commit before sending it."""
        row.attempts += 1
        row.attempted_at = func.now()
        row.next_attempt_at = func.now() + self.claim_duration
        session.flush()
        policy = self.retry_policy(row)
        retry_after = None if policy.is_last(row.attempts, age) else policy.delay(row.attempts)
        return Attempt(row.id, row.attempts, retry_after)

    def record_sent(self, session: Session, row_id: int, values: Mapping[str, Any]) -> None:
        """Record that the row was sent, even if the claim was lost since, with `values` for other columns."""
        session.execute(
            update(self.table)
            .where(self.table.id == row_id)
            .values(status=SENT, sent_at=func.now(), claim_token=None, last_error=None, **values)
        )

    def record_retry(self, session: Session, claim: Claim, attempt: Attempt, error: str) -> None:
        """Record that an attempt that was not the last has failed, and schedule the next one."""
        session.execute(
            update(self.table)
            .where(self.table.id == attempt.row_id, *self._is_held(claim))
            .values(claim_token=None, last_error=error, next_attempt_at=func.now() + attempt.retry_after)
        )

    def record_uncounted(self, session: Session, claim: Claim, attempt: Attempt, error: str) -> None:
        """Record that an attempt says nothing about the row; it does not count, and the row is retried."""
        delay = attempt.retry_after or MIN_DELAY
        session.execute(
            update(self.table)
            .where(self.table.id == attempt.row_id, *self._is_held(claim))
            .values(
                attempts=self.table.attempts - 1,
                claim_token=None,
                last_error=error,
                next_attempt_at=func.now() + delay,
            )
        )

    def record_failed(self, session: Session, row_id: int, error: str) -> bool:
        """Record that the row has failed permanently; return False if it is no longer queued."""
        failed = session.execute(
            update(self.table)
            .where(self.table.id == row_id, self.table.status == QUEUED)
            .values(status=FAILED, claim_token=None, last_error=error)
            .returning(self.table.id)
        )
        return failed.one_or_none() is not None

    def release(self, session: Session, claim: Claim, keep: Collection[int] = ()) -> None:
        """Release the rows of a claim that were not tried; they are due at once, locked ones when the claim expires.

        The rows in `keep` were tried, and stay claimed until their results are recorded.
        """
        untried = (
            select(self.table.id)
            .where(*self._is_held(claim), self.table.id.not_in(keep))
            .with_for_update(skip_locked=True)
        )
        session.execute(
            update(self.table).where(self.table.id.in_(untried)).values(claim_token=None, next_attempt_at=func.now())
        )

    def _is_held(self, claim: Claim) -> tuple[ColumnElement[bool], ...]:
        return self.table.claim_token == claim.token, self.table.status == QUEUED


def is_due(table: type[OutboxRow]) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions for a row that may be sent now."""
    return table.status == QUEUED, table.next_attempt_at <= func.now()


def requeue(session: Session, table: type[Row], *conditions: ColumnElement[bool]) -> Sequence[Row]:
    """Queue the failed rows of `table` that meet the conditions again, with all their attempts; return them."""
    return session.scalars(
        update(table)
        .where(table.status == FAILED, *conditions)
        .values(status=QUEUED, attempts=0, next_attempt_at=func.now(), claim_token=None)
        .returning(table)
    ).all()
