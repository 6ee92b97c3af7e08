"""What follows from a failed run: one `errors` row, and PostHog told of it, once, however often the run is mirrored.

The row holds the sentence that people read. PostHog gets no sentence, which may quote a name or a number, but the
kind of failure and what that kind means.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, Text, exists, select
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP, insert
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from seedtrust_ops.domain.outbox.event_store import Destination, Event, queue_events
from seedtrust_ops.domain.sql_arrays import array_table
from seedtrust_ops.tables import ErrorRecord, JobRun

_COLUMNS: list[tuple[str, TypeEngine[Any]]] = [
    ("run_id", Text()),
    ("severity", Text()),
    ("exception_type", Text()),
    ("message", Text()),
    ("traceback", Text()),
    ("context", JSONB()),
    ("occurred_at", TIMESTAMP(timezone=True)),
]


@dataclass(frozen=True)
class RunFailure:
    """How one run failed; `occurred_at` in UTC.

    `message` is the sentence that people read, `meaning` what failures of this type are, without anything of this
    one. `context` holds no personal data.
    """

    run_id: str
    task_name: str
    severity: str
    exception_type: str
    message: str
    meaning: str
    traceback: str | None
    context: dict[str, Any]
    occurred_at: datetime


def record_failures(session: Session, failures: Sequence[RunFailure]) -> int:
    """Write the `errors` row of each run that JobRun has as ERROR and that has none, and queue what PostHog is told.

    The run's row is locked first, so that of two mirrors at once the second sees what the first one wrote.

    Returns:
        How many rows were written.
    """
    if not failures:
        return 0
    of_run = {failure.run_id: failure for failure in failures}
    run_ids = {row.id: row.run_id for row in session.execute(_lock(sorted(of_run)))}
    news = array_table(
        "news", _COLUMNS, [[getattr(failure, name) for name, _ in _COLUMNS] for failure in of_run.values()]
    )
    told = exists().where(ErrorRecord.job_run_id == JobRun.id)
    values = (
        select(
            JobRun.id,
            JobRun.task_name,
            news.c.severity,
            news.c.exception_type,
            news.c.message,
            news.c.traceback,
            news.c.context,
            news.c.occurred_at,
        )
        .join(news, news.c.run_id == JobRun.run_id)
        .where(JobRun.status == "ERROR", ~told)
    )
    written = (
        insert(ErrorRecord)
        .from_select(["job_run_id", "source", *(name for name, _ in _COLUMNS[1:])], values)
        .returning(ErrorRecord.job_run_id)
    )
    new = [of_run[run_ids[job_run_id]] for job_run_id in session.scalars(written) if job_run_id is not None]
    queue_events(session, [event for failure in new for event in _events(failure)])
    return len(new)


def without_numbers(text: str) -> str:
    """Return `text` with every run of four or more digits masked: no account number leaves the house."""
    return re.sub(r"\d{4,}", "****", text)


def _lock(run_ids: Sequence[str]) -> Select[int, str]:
    wanted = array_table("wanted", [("run_id", Text())], [[run_id] for run_id in run_ids])
    return (
        select(JobRun.id, JobRun.run_id)
        .join(wanted, wanted.c.run_id == JobRun.run_id)
        .order_by(JobRun.run_id)
        .with_for_update(of=JobRun, key_share=True)
    )


def _events(failure: RunFailure) -> list[Event]:
    properties = {
        "task_name": failure.task_name,
        "run_id": failure.run_id,
        "severity": failure.severity,
        "exception_type": failure.exception_type,
    }
    exception = {
        "type": failure.exception_type,
        "message": without_numbers(failure.meaning),
        "traceback": without_numbers(failure.traceback or ""),
    }
    bodies: dict[str, dict[str, Any]] = {
        "job_run_error": {"event": "job_run_error", "properties": properties},
        "job_run_exception": {"exception": exception, "properties": properties},
    }
    return [Event(Destination.POSTHOG, f"{kind}:{failure.run_id}", body) for kind, body in bodies.items()]
