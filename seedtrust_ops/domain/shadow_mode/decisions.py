"""Records what jobs in shadow mode would have done: one row per decision, however often it is made.

The evaluations are recorded too: when a job was first and last evaluated in shadow mode, and so what it has not
evaluated yet. Imports stay light, because every sensor evaluation loads this module.
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
from seedtrust_ops.domain.transfers.batch_lifecycle import QueuedBatch
from seedtrust_ops.tables import HuntingtonBatch, ReportRequest, ShadowDecision

EVALUATED = "evaluated"
"""The decision that records an evaluation; its subject is `ALL_SUBJECTS`."""
ALL_SUBJECTS = "everything"
INITIAL_LOOKBACK = timedelta(days=1)
"""How far back the first evaluation of a job reaches."""
OVERLAP = timedelta(hours=1)
"""How far before the last evaluation each later one reaches, to cover what was in progress then."""
MAX_UNDECIDED_REQUESTS = 100
_ROWS_PER_STATEMENT = 5_000


@dataclass(frozen=True)
class Decision:
    """What a job would have done to one subject; `detail` holds no personal data and no account number."""

    subject: str
    decision: str
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationTimes:
    """When a job was first and last evaluated in shadow mode (UTC)."""

    first: datetime
    last: datetime


def record_decisions(session: Session, job: str, decisions: Iterable[Decision], *, began: datetime) -> int:
    """Record the decisions of one evaluation, and the evaluation itself; return how many decisions are new.

    Args:
        session: in a transaction that the caller commits, never one of a dry run.
        job: the name of the job.
        decisions: what it decided.
        began: when the evaluation started (UTC, by the database's clock); it may not have seen later changes.
    """
    listed = list({(one.subject, one.decision): one for one in decisions}.values())
    _record_evaluation(session, job, began)
    new = 0
    for start in range(0, len(listed), _ROWS_PER_STATEMENT):
        new += _record(session, job, listed[start : start + _ROWS_PER_STATEMENT])
    return new


def transaction_start_time(session: Session) -> datetime:
    """Return when the current database transaction started (UTC, by the database's clock)."""
    return session.scalars(select(func.now())).one()


def evaluation_times(session: Session, job: str) -> EvaluationTimes | None:
    """Return when a job was evaluated in shadow mode, or None if it never was."""
    row = session.execute(
        select(ShadowDecision.first_seen_at, ShadowDecision.last_seen_at).where(
            ShadowDecision.job == job, ShadowDecision.subject == ALL_SUBJECTS, ShadowDecision.decision == EVALUATED
        )
    ).one_or_none()
    return EvaluationTimes(*row) if row is not None else None


def evaluation_window_start(session: Session, job: str) -> datetime:
    """Return the start (UTC) of the window in which the legacy system's changes count: since the last evaluation."""
    times = evaluation_times(session, job)
    if times is not None:
        return times.last - OVERLAP
    return session.scalars(select(func.now() - INITIAL_LOOKBACK)).one()


def undecided_batches(session: Session, job: str) -> list[QueuedBatch]:
    """Return the batches queued since their last shadow evaluation, whatever the legacy worker has done with them."""
    times = evaluation_times(session, job)
    since = (times.first if times is not None else func.now()) - INITIAL_LOOKBACK
    queued_at = func.coalesce(HuntingtonBatch.queued_at, HuntingtonBatch.created_at)
    seen = select(ShadowDecision.id).where(
        ShadowDecision.job == job,
        ShadowDecision.subject == func.concat("batch ", HuntingtonBatch.id),
        ShadowDecision.last_seen_at > queued_at,
    )
    rows = session.execute(
        select(HuntingtonBatch.id, HuntingtonBatch.priority, queued_at)
        .where(HuntingtonBatch.status.not_in(("draft", "held")), queued_at >= since, ~seen.exists())
        .order_by(HuntingtonBatch.priority.desc(), queued_at, HuntingtonBatch.id)
    )
    return [QueuedBatch(row.id, row.priority, row[2], 0, None, None) for row in rows]


def undecided_requests(session: Session, job: str) -> list[int]:
    """Return the oldest undecided request ids, at most MAX_UNDECIDED_REQUESTS, regardless of their current status."""
    times = evaluation_times(session, job)
    since = (times.first if times is not None else func.now()) - INITIAL_LOOKBACK
    decided = select(ShadowDecision.id).where(
        ShadowDecision.job == job, ShadowDecision.subject == func.concat("report request ", ReportRequest.id)
    )
    query = (
        select(ReportRequest.id)
        .where(ReportRequest.requested_at >= since, ~decided.exists())
        .order_by(ReportRequest.requested_at, ReportRequest.id)
        .limit(MAX_UNDECIDED_REQUESTS)
    )
    return list(session.scalars(query))


def _record_evaluation(session: Session, job: str, began: datetime) -> None:
    evaluation = {
        "job": job,
        "subject": ALL_SUBJECTS,
        "decision": EVALUATED,
        "first_seen_at": began,
        "last_seen_at": began,
    }
    session.execute(
        insert(ShadowDecision)
        .values(evaluation)
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
