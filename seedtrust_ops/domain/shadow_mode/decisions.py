"""Records what jobs in shadow would have done: each decision once, however often it is made.

The looks themselves are on record too, so that it is known since when a job has looked, and when it did last.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Text, cast, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Session

from seedtrust_ops.domain.sql_arrays import array_table
from seedtrust_ops.tables import ShadowDecision

LOOKED = "looked"
"""The decision that says that a job looked; its subject is the job itself."""
EVERYTHING = "everything"
FIRST_LOOK = timedelta(days=1)
"""How far back a job's first look in shadow goes."""
OVERLAP = timedelta(hours=1)
"""How far before the last look every other one begins: what was under way then is seen now."""
_ROWS_A_STATEMENT = 5_000


@dataclass(frozen=True)
class Decision:
    """What a job would have done to one subject; `detail` holds no personal data and no account number."""

    subject: str
    decision: str
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Looks:
    """Since when a job has looked in shadow, and when it did last (UTC)."""

    first: datetime
    last: datetime


def record_decisions(session: Session, job: str, decisions: Iterable[Decision], *, began: datetime) -> int:
    """Put the decisions of one look on record, and that it took place; return how many were never made before.

    Args:
        session: in a transaction that the caller commits; no rehearsal's.
        job: whose look it was.
        decisions: what it decided.
        began: when it began to look (UTC), by the database's clock: what came later it may not have seen.
    """
    listed = list({(one.subject, one.decision): one for one in decisions}.values())
    _record_look(session, job, began)
    new = 0
    for start in range(0, len(listed), _ROWS_A_STATEMENT):
        new += _record(session, job, listed[start : start + _ROWS_A_STATEMENT])
    return new


def now(session: Session) -> datetime:
    """Return the database's time (UTC)."""
    return session.scalars(select(func.now())).one()


def looks_of(session: Session, job: str) -> Looks | None:
    """Return when a job looked in shadow, None where it never did."""
    row = session.execute(
        select(ShadowDecision.first_seen_at, ShadowDecision.last_seen_at).where(
            ShadowDecision.job == job, ShadowDecision.subject == EVERYTHING, ShadowDecision.decision == LOOKED
        )
    ).one_or_none()
    return Looks(*row) if row is not None else None


def look_begins(session: Session, job: str) -> datetime:
    """Return from when on (UTC) a look has to see what the legacy system did: since the job's last look."""
    looks = looks_of(session, job)
    if looks is not None:
        return looks.last - OVERLAP
    return session.scalars(select(func.now() - FIRST_LOOK)).one()


def _record_look(session: Session, job: str, began: datetime) -> None:
    look = {"job": job, "subject": EVERYTHING, "decision": LOOKED, "first_seen_at": began, "last_seen_at": began}
    session.execute(
        insert(ShadowDecision)
        .values(look)
        .on_conflict_do_update(
            index_elements=["job", "subject", "decision"],
            set_={
                "times": ShadowDecision.times + 1,
                "last_seen_at": func.greatest(ShadowDecision.last_seen_at, began),
            },
        )
    )


def _record(session: Session, job: str, decisions: list[Decision]) -> int:
    rows = array_table(
        "decided",
        [("subject", Text()), ("decision", Text()), ("detail", Text())],
        [(one.subject, one.decision, json.dumps(one.detail)) for one in decisions],
    )
    statement = insert(ShadowDecision).from_select(
        ["job", "subject", "decision", "detail"],
        select(literal(job), rows.c.subject, rows.c.decision, cast(rows.c.detail, JSONB)),
    )
    written = session.scalars(
        statement.on_conflict_do_update(
            index_elements=["job", "subject", "decision"],
            set_={
                "detail": statement.excluded.detail,
                "times": ShadowDecision.times + 1,
                "last_seen_at": func.now(),
            },
        ).returning(ShadowDecision.times)
    )
    return sum(times == 1 for times in written)
