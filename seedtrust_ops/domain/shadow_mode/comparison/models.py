"""The comparison of one job: the period, how much agrees, and each difference with its reason."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.shadow_mode.decisions import EVALUATED, INITIAL_LOOKBACK, evaluation_times
from seedtrust_ops.tables import ShadowDecision

SETTLING_TIME = timedelta(minutes=15)
"""How long the other system may take before an action of only one system counts as a difference."""


@dataclass(frozen=True)
class Difference:
    """One subject on which the two systems differ; contains no personal data."""

    subject: str
    ours: str
    theirs: str
    reason: str


@dataclass
class Comparison:
    """The result for one job; `note` says why some or all of it could not be compared."""

    job: str
    agreements: int = 0
    differences: list[Difference] = field(default_factory=list)
    pending: int = 0
    """How many decisions are too new for the legacy system to have acted."""
    note: str | None = None

    def add_difference(self, subject: str, ours: str, theirs: str, reason: str) -> None:
        """Add a difference."""
        self.differences.append(Difference(subject, ours, theirs, reason))


@dataclass(frozen=True)
class ComparisonPeriod:
    """The period to compare (UTC). After `settled`, an action of one system alone is not a difference."""

    since: datetime
    until: datetime

    @property
    def settled(self) -> datetime:
        """The time before which both systems had time to act."""
        return self.until - SETTLING_TIME


def evaluated_period(session: Session, job: str, period: ComparisonPeriod) -> ComparisonPeriod | None:
    """Return the part of the period that the job's evaluations cover, or None if it was never in shadow mode."""
    times = evaluation_times(session, job)
    if times is None:
        return None
    return ComparisonPeriod(
        max(period.since, times.first - INITIAL_LOOKBACK), min(period.until, times.last + SETTLING_TIME)
    )


def never_evaluated(job: str) -> Comparison:
    """Return the comparison of a job that was never in shadow mode."""
    return Comparison(job, note="it has never run in shadow mode, so there is nothing to compare")


def decisions_in(session: Session, job: str, period: ComparisonPeriod) -> list[ShadowDecision]:
    """Return what the job decided in the period, oldest first, without the records of its evaluations."""
    return list(
        session.scalars(
            select(ShadowDecision)
            .where(
                ShadowDecision.job == job,
                ShadowDecision.decision != EVALUATED,
                ShadowDecision.last_seen_at >= period.since,
                ShadowDecision.first_seen_at <= period.until,
            )
            .order_by(ShadowDecision.last_seen_at, ShadowDecision.id)
        )
    )


def in_settled_period(timestamp: Any, period: ComparisonPeriod) -> ColumnElement[bool]:
    """Return the condition that a timestamp lies in the settled part of the period."""
    return and_(timestamp >= period.since, timestamp <= period.settled)


def subject_id(subject: str) -> int:
    """Return the id at the end of a decision's subject, for example 12 for 'request 12'."""
    return int(subject.rsplit(" ", 1)[-1])
