"""JobRun, the mirror of every run that all dashboards read: what a run is becomes one row, and never goes back.

Where the runs come from is `monitoring/`'s; recording the same facts twice, or out of order, changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, SQLColumnExpression, case, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from seedtrust_ops.tables import JobRun

RESOLUTIONS = ("COMPLETED", "ERROR", "EXPIRED", "REVOKED")


@dataclass(frozen=True)
class RunFact:
    """What is known of one run at one moment; times in UTC."""

    run_id: str
    task_name: str
    status: str
    arguments: dict[str, Any]
    priority: int
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def mirror_runs(session: Session, facts: Sequence[RunFact]) -> int:
    """Bring JobRun up to `facts` in one statement; return how many rows were new or changed.

    A status never goes back: PENDING, then STARTED, then one of COMPLETED, ERROR, EXPIRED and REVOKED, which is
    also the resolution.
    """
    latest = {fact.run_id: fact for fact in sorted(facts, key=lambda fact: _order_of(fact.status))}
    if not latest:
        return 0
    statement = insert(JobRun).values(
        [
            {
                "run_id": fact.run_id,
                "task_name": fact.task_name,
                "status": fact.status,
                "resolution": fact.status if fact.status in RESOLUTIONS else None,
                "arguments": fact.arguments,
                "priority": fact.priority,
                "queued_at": fact.queued_at,
                "started_at": fact.started_at,
                "finished_at": fact.finished_at,
            }
            for fact in latest.values()
        ]
    )
    new = statement.excluded
    was, is_now = _order(JobRun.status), _order(new.status)
    rows = session.execute(
        statement.on_conflict_do_update(
            index_elements=[JobRun.run_id],
            set_={
                "status": new.status,
                "resolution": new.resolution,
                "priority": new.priority,
                "started_at": func.coalesce(new.started_at, JobRun.started_at),
                "finished_at": func.coalesce(new.finished_at, JobRun.finished_at),
                "updated_at": func.now(),
            },
            where=or_(
                is_now > was,
                (is_now == was) & JobRun.started_at.is_(None) & new.started_at.is_not(None),
            ),
        ).returning(JobRun.id)
    )
    return len(rows.all())


def unfinished_runs(session: Session, *, limit: int) -> list[str]:
    """Return the ids of runs that JobRun does not know the end of, the newest first."""
    query = select(JobRun.run_id).where(JobRun.resolution.is_(None)).order_by(JobRun.queued_at.desc()).limit(limit)
    return list(session.scalars(query))


def _order_of(status: str) -> int:
    return 2 if status in RESOLUTIONS else 1 if status == "STARTED" else 0


def _order(status: SQLColumnExpression[str]) -> ColumnElement[int]:
    return case((status == "PENDING", 0), (status == "STARTED", 1), else_=2)
