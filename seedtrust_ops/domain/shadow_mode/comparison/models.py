"""What a comparison is: a period, what agrees, and each difference with its reason."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.shadow_mode.decisions import FIRST_LOOK, LOOKED, looks_of
from seedtrust_ops.tables import ShadowDecision

SETTLES_WITHIN = timedelta(minutes=15)
"""How long the other side is waited for before what one side alone has done counts as a difference."""


@dataclass(frozen=True)
class Difference:
    """One subject about which the two do not agree; none of it holds personal data."""

    subject: str
    ours: str
    theirs: str
    reason: str


@dataclass
class Comparison:
    """What came of comparing one job; `note` says why nothing, or not all of it, could be compared."""

    job: str
    agreements: int = 0
    differences: list[Difference] = field(default_factory=list)
    waiting: int = 0
    """How many decisions are too new for the legacy system to have done the same."""
    note: str | None = None

    def differ(self, subject: str, ours: str, theirs: str, reason: str) -> None:
        """Add a difference."""
        self.differences.append(Difference(subject, ours, theirs, reason))


@dataclass(frozen=True)
class Period:
    """The period that is compared (UTC, aware); what began after `settled` is not judged where one side is missing."""

    since: datetime
    until: datetime

    @property
    def settled(self) -> datetime:
        """The moment before which both sides had the time to act."""
        return self.until - SETTLES_WITHIN


def looked_at(session: Session, job: str, period: Period) -> Period | None:
    """Return the part of the period that the job has looked at in shadow, None where it never did."""
    looks = looks_of(session, job)
    if looks is None:
        return None
    return Period(max(period.since, looks.first - FIRST_LOOK), min(period.until, looks.last + SETTLES_WITHIN))


def never_looked(job: str) -> Comparison:
    """Return the comparison of a job that was never in shadow."""
    return Comparison(job, note="it has never looked in shadow, so there is nothing to compare")


def decisions_of(session: Session, job: str, period: Period) -> list[ShadowDecision]:
    """Return what the job decided in the period, oldest first, its looks left out."""
    return list(
        session.scalars(
            select(ShadowDecision)
            .where(
                ShadowDecision.job == job,
                ShadowDecision.decision != LOOKED,
                ShadowDecision.last_seen_at >= period.since,
                ShadowDecision.first_seen_at <= period.until,
            )
            .order_by(ShadowDecision.last_seen_at, ShadowDecision.id)
        )
    )


def within(moment: Any, period: Period) -> ColumnElement[bool]:
    """Return the condition that a moment lies in the settled part of the period."""
    return and_(moment >= period.since, moment <= period.settled)


def number_in(subject: str) -> int:
    """Return the number at the end of a decision's subject, such as 12 of 'request 12'."""
    return int(subject.rsplit(" ", 1)[-1])
