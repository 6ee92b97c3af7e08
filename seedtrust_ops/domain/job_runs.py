"""JobRun, the mirror of every run that all dashboards read: what a run is becomes one row, and never goes back.

Where the runs come from is `monitoring/`'s, and what follows from a failure is `job_failures`'; recording the same
facts twice, or out of order, changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Integer, Text, and_, case, func, or_, select, tuple_
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP, insert
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from seedtrust_ops.domain.sql_arrays import array_table
from seedtrust_ops.tables import JobRun

RESOLUTIONS = ("COMPLETED", "ERROR", "EXPIRED", "REVOKED")

_COLUMNS: list[tuple[str, TypeEngine[Any]]] = [
    ("run_id", Text()),
    ("task_name", Text()),
    ("status", Text()),
    ("resolution", Text()),
    ("arguments", JSONB()),
    ("result", JSONB(none_as_null=True)),
    ("error", Text()),
    ("priority", Integer()),
    ("retries", Integer()),
    ("queued_at", TIMESTAMP(timezone=True)),
    ("started_at", TIMESTAMP(timezone=True)),
    ("finished_at", TIMESTAMP(timezone=True)),
]


@dataclass(frozen=True)
class RunFact:
    """What is known of one run at one moment; times in UTC.

    `result` is what the job returned, or how far it has come while it runs; `retries` is how often its ops were
    tried again; `error` is the sentence that people read.
    """

    run_id: str
    task_name: str
    status: str
    arguments: dict[str, Any]
    priority: int
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    result: Any = None
    error: str | None = None
    retries: int = 0

    @property
    def resolution(self) -> str | None:
        """The status, where it is the run's last."""
        return self.status if self.status in RESOLUTIONS else None


def mirror_runs(session: Session, facts: Sequence[RunFact]) -> int:
    """Bring JobRun up to `facts` in one statement; return how many rows were new or changed.

    A status never goes back: PENDING, then STARTED, then one of COMPLETED, ERROR, EXPIRED and REVOKED, which is also
    the resolution. Where a run has two ends (a worker taken for dead comes back and finishes), the one that happened
    later counts, whichever was read first. A result or an error that becomes known later still gets in.

    Every row of `facts` stays locked until the transaction ends, in the order of run ids.
    """
    latest = {fact.run_id: fact for fact in sorted(facts, key=_age)}
    if not latest:
        return 0
    news = array_table(
        "news",
        _COLUMNS,
        [[getattr(fact, name) for name, _ in _COLUMNS] for _, fact in sorted(latest.items())],
    )
    statement = insert(JobRun).from_select([name for name, _ in _COLUMNS], select(*news.c).order_by(news.c.run_id))
    rows = session.execute(_keeping_what_is_newer(statement).returning(JobRun.id))
    return len(rows.all())


def unfinished_runs(session: Session, *, limit: int) -> list[str]:
    """Return the ids of runs that JobRun does not know the end of, the newest first."""
    query = select(JobRun.run_id).where(JobRun.resolution.is_(None)).order_by(JobRun.queued_at.desc()).limit(limit)
    return list(session.scalars(query))


def _keeping_what_is_newer(statement: Any) -> Any:
    """Let a row that is there change only where the news are news: a later status, or something not known before."""
    new = statement.excluded
    was, is_now = _order(JobRun), _order(new)
    other_end = and_(is_now == was, new.status != JobRun.status)
    ahead = or_(is_now > was, and_(other_end, new.finished_at > JobRun.finished_at))
    behind = or_(is_now < was, other_end)
    said = {
        "result": func.coalesce(new.result, JobRun.result),
        "error": case((ahead, new.error), else_=func.coalesce(new.error, JobRun.error)),
        "retries": func.greatest(new.retries, JobRun.retries),
        "priority": new.priority,
        "started_at": func.greatest(new.started_at, JobRun.started_at),
        "finished_at": func.greatest(new.finished_at, JobRun.finished_at),
    }
    known = [getattr(JobRun, name) for name in said]
    return statement.on_conflict_do_update(
        index_elements=[JobRun.run_id],
        set_={"status": new.status, "resolution": new.resolution, **said, "updated_at": func.now()},
        where=or_(ahead, and_(~behind, tuple_(*said.values()).is_distinct_from(tuple_(*known)))),
    )


def _age(fact: RunFact) -> tuple[int, float]:
    order = 2 if fact.resolution is not None else 1 if fact.status == "STARTED" else 0
    return order, fact.finished_at.timestamp() if fact.finished_at is not None else 0.0


def _order(run: Any) -> ColumnElement[int]:
    return case((run.resolution.is_not(None), 2), (run.status == "STARTED", 1), else_=0)
