"""Writes JobRun, the mirror of all Dagster runs that the dashboards read: one row per run; a status never goes back.

Snapshots come from `monitoring`; failures are handled in `job_failures`. Writing the same snapshots twice or out of
order changes nothing.
See docs/decisions/job-run-mirror.md.
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
class RunSnapshot:
    """The state of one run at one moment; times in UTC.

    `result` is the job's return value, or its progress while it runs; `retries` counts op retries; `error` is the
    sentence that people read.
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
        """The status, if it is a final one."""
        return self.status if self.status in RESOLUTIONS else None


def mirror_runs(session: Session, snapshots: Sequence[RunSnapshot]) -> int:
    """Upsert `snapshots` into JobRun in one statement; return how many rows were inserted or changed.

    A status never goes back: PENDING, then STARTED, then one of COMPLETED, ERROR, EXPIRED and REVOKED, which is also
    the resolution. If a run ends twice (a worker was presumed crashed, then finishes), the later end counts, whichever
    was read first. A result or an error that becomes known later is still added.

    The rows stay locked until the transaction ends, in the order of run ids.
    """
    latest = {snapshot.run_id: snapshot for snapshot in sorted(snapshots, key=_recency)}
    if not latest:
        return 0
    source = array_table(
        "snapshots",
        _COLUMNS,
        [[getattr(snapshot, name) for name, _ in _COLUMNS] for _, snapshot in sorted(latest.items())],
    )
    statement = insert(JobRun).from_select([name for name, _ in _COLUMNS], select(*source.c).order_by(source.c.run_id))
    rows = session.execute(_upsert_newer(statement).returning(JobRun.id))
    return len(rows.all())


def unfinished_runs(session: Session, *, limit: int) -> list[str]:
    """Return the ids of runs without a final status in JobRun, newest first."""
    query = select(JobRun.run_id).where(JobRun.resolution.is_(None)).order_by(JobRun.queued_at.desc()).limit(limit)
    return list(session.scalars(query))


def _upsert_newer(statement: Any) -> Any:
    """Update an existing row only if the snapshot adds something: a later status, or a value not known before."""
    new = statement.excluded
    old_rank, new_rank = _status_rank(JobRun), _status_rank(new)
    other_end = and_(new_rank == old_rank, new.status != JobRun.status)
    ahead = or_(new_rank > old_rank, and_(other_end, new.finished_at > JobRun.finished_at))
    behind = or_(new_rank < old_rank, other_end)
    merged = {
        "result": func.coalesce(new.result, JobRun.result),
        "error": case((ahead, new.error), else_=func.coalesce(new.error, JobRun.error)),
        "retries": func.greatest(new.retries, JobRun.retries),
        "priority": new.priority,
        "started_at": func.greatest(new.started_at, JobRun.started_at),
        "finished_at": func.greatest(new.finished_at, JobRun.finished_at),
    }
    current = [getattr(JobRun, name) for name in merged]
    return statement.on_conflict_do_update(
        index_elements=[JobRun.run_id],
        set_={"status": new.status, "resolution": new.resolution, **merged, "updated_at": func.now()},
        where=or_(ahead, and_(~behind, tuple_(*merged.values()).is_distinct_from(tuple_(*current)))),
    )


def _recency(snapshot: RunSnapshot) -> tuple[int, float]:
    rank = 2 if snapshot.resolution is not None else 1 if snapshot.status == "STARTED" else 0
    return rank, snapshot.finished_at.timestamp() if snapshot.finished_at is not None else 0.0


def _status_rank(run: Any) -> ColumnElement[int]:
    return case((run.resolution.is_not(None), 2), (run.status == "STARTED", 1), else_=0)


def find_ended_runs(session: Session, run_ids: list[str]) -> set[str]:
    """Return the runs among `run_ids` that have a final status in JobRun."""
    query = select(JobRun.run_id).where(JobRun.run_id == func.any(run_ids), JobRun.resolution.is_not(None))
    return set(session.scalars(query))
