"""Records a failed run once, however often it is mirrored: one `errors` row and two PostHog events.

The row has the message that people read. Because that message may quote a name or a number, PostHog gets only the
error type and what that type means.
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

from seedtrust_ops.domain.outbox.store import Destination, Event, enqueue_events
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


INPUT_ERROR = "input_error"
"""The key in `errors.context` of a failure that a person caused by what they gave a run; it opens no alert."""


@dataclass(frozen=True)
class RunFailure:
    """How one run failed; `occurred_at` in UTC.

    `message` is the sentence that people read; `meaning` describes the error type in general, without data of this
    run. `context` has no personal data.
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
    """Write an `errors` row for each run that is ERROR in JobRun and has none yet, and queue its PostHog events.

    The JobRun row is locked first, so that of two concurrent mirrors the second sees what the first wrote.

    Returns:
        The number of rows written.
    """
    if not failures:
        return 0
    by_run_id = {failure.run_id: failure for failure in failures}
    run_ids = {row.id: row.run_id for row in session.execute(_lock(sorted(by_run_id)))}
    reported = array_table(
        "reported", _COLUMNS, [[getattr(failure, name) for name, _ in _COLUMNS] for failure in by_run_id.values()]
    )
    is_recorded = exists().where(ErrorRecord.job_run_id == JobRun.id)
    values = (
        select(
            JobRun.id,
            JobRun.task_name,
            reported.c.severity,
            reported.c.exception_type,
            reported.c.message,
            reported.c.traceback,
            reported.c.context,
            reported.c.occurred_at,
        )
        .join(reported, reported.c.run_id == JobRun.run_id)
        .where(JobRun.status == "ERROR", ~is_recorded)
    )
    written = (
        insert(ErrorRecord)
        .from_select(["job_run_id", "source", *(name for name, _ in _COLUMNS[1:])], values)
        .returning(ErrorRecord.job_run_id)
    )
    new = [by_run_id[run_ids[job_run_id]] for job_run_id in session.scalars(written) if job_run_id is not None]
    enqueue_events(session, [event for failure in new for event in _events(failure)])
    return len(new)


def mask_long_numbers(text: str) -> str:
    """Return `text` with every run of four or more digits masked, so that no account number leaves our systems."""
    return re.sub(r"\d{4,}", "****", text)


def _lock(run_ids: Sequence[str]) -> Select[int, str]:
    failed = array_table("failed", [("run_id", Text())], [[run_id] for run_id in run_ids])
    return (
        select(JobRun.id, JobRun.run_id)
        .join(failed, failed.c.run_id == JobRun.run_id)
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
        "message": mask_long_numbers(failure.meaning),
        "traceback": mask_long_numbers(failure.traceback or ""),
    }
    bodies: dict[str, dict[str, Any]] = {
        "job_run_error": {"event": "job_run_error", "properties": properties},
        "job_run_exception": {"exception": exception, "properties": properties},
    }
    return [Event(Destination.POSTHOG, f"{kind}:{failure.run_id}", body) for kind, body in bodies.items()]
