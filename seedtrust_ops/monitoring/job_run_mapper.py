"""Maps a Dagster run to JobRun's columns: status, arguments, priority, result, retries and error.

It reads and writes no database; whether the row changes is decided in `domain/job_runs`.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from seedtrust_ops.domain.job_failures import INPUT_ERROR, RunFailure
from seedtrust_ops.domain.job_runs import RunSnapshot
from seedtrust_ops.domain.json_safe import limit_size, to_json_safe
from seedtrust_ops.job_policies import job_policy
from seedtrust_ops.monitoring.failure_summary import Failure, summarize_failure
from seedtrust_ops.monitoring.run_events import RunEvents
from seedtrust_ops.orchestration.queue_expiration import has_expired
from seedtrust_ops.severity import Severity
from seedtrust_ops.tag_names import (
    JOB_RUN_STATUSES,
    PRIORITY_TAG,
    PROGRESS_TAG,
    UNKNOWN_STATUS,
    parse_progress,
)


def status_of(run: dg.DagsterRun) -> str:
    """Return the run's JobRun status."""
    status = JOB_RUN_STATUSES.get(run.status.value, UNKNOWN_STATUS)
    return "EXPIRED" if status == "REVOKED" and has_expired(run) else status


def to_run_snapshot(record: dg.RunRecord, events: RunEvents | None = None) -> RunSnapshot:
    """Return the JobRun columns of a run; `events` is None for a run that was not started."""
    run, events = record.dagster_run, events or RunEvents()
    status = status_of(run)
    return RunSnapshot(
        run_id=run.run_id,
        task_name=run.job_name,
        status=status,
        arguments=_arguments(run.run_config),
        priority=_to_int32(run.tags.get(PRIORITY_TAG)),
        queued_at=record.create_timestamp,
        started_at=_time(record.start_time),
        finished_at=_time(record.end_time),
        result=events.result if events.returned else _progress(run, status),
        error=_error(record, status, events),
        retries=events.retries,
    )


def failure_to_record(record: dg.RunRecord, events: RunEvents) -> RunFailure:
    """Return the failure to record for a failed run."""
    run, failure = record.dagster_run, summarize_failure(events)
    context = _context(run, failure, events)
    return RunFailure(
        run_id=run.run_id,
        task_name=run.job_name,
        severity=(Severity.LOW if INPUT_ERROR in context else job_policy(run.job_name).severity).value,
        exception_type=failure.exception_type,
        message=failure.message,
        meaning=failure.meaning,
        traceback=failure.traceback,
        context=context,
        occurred_at=_time(record.end_time) or record.update_timestamp,
    )


def _context(run: dg.DagsterRun, failure: Failure, events: RunEvents) -> dict[str, Any]:
    """Return the other facts about a failure, without the run's arguments: those may name people and stay in JobRun."""
    facts = {
        "run_id": run.run_id,
        "step": failure.step,
        "retries": events.retries,
        "parent_run_id": run.parent_run_id,
        "schedule": run.tags.get("dagster/schedule_name"),
        "sensor": run.tags.get("dagster/sensor_name"),
        "backfill": run.tags.get("dagster/backfill"),
    }
    if failure.is_input_error and facts["schedule"] is None and facts["sensor"] is None:
        # The person who launched the run sees the error: nobody else needs an alert.
        facts[INPUT_ERROR] = True
    return {name: value for name, value in facts.items() if value is not None}


def _error(record: dg.RunRecord, status: str, events: RunEvents) -> str | None:
    if status == "ERROR":
        return summarize_failure(events).message
    if status == "EXPIRED":
        waited = (_time(record.end_time) or record.update_timestamp) - record.create_timestamp
        return (
            f"Expired: waited {timedelta(seconds=round(waited.total_seconds()))} in the queue, longer than this job's "
            "limit, and was canceled. No work was done."
        )
    return None


def _progress(run: dg.DagsterRun, status: str) -> dict[str, Any] | None:
    """Return the progress of a run that reports it; a pending run's tag is only a copy of its parent's."""
    progress = parse_progress(run.tags.get(PROGRESS_TAG))
    if progress is None or status == "PENDING":
        return None
    return {"progress": {"done": progress[0], "total": progress[1]}}


def _arguments(run_config: Any) -> dict[str, Any]:
    """Return a run's arguments: the config of its one op, or the whole run config if it has several."""
    ops = run_config.get("ops") if isinstance(run_config, dict) else None
    if isinstance(ops, dict) and len(ops) == 1:
        (op,) = ops.values()
        arguments = op.get("config") if isinstance(op, dict) else op
    else:
        arguments = run_config
    plain = limit_size(to_json_safe(arguments or {}))
    return plain if isinstance(plain, dict) else {"config": plain}


def _to_int32(text: str | None) -> int:
    """Return the number in a tag that anyone may edit, clamped to PostgreSQL's integer; 0 if it is not a number."""
    try:
        number = int(text or 0)
    except ValueError:
        return 0
    return max(-(2**31), min(number, 2**31 - 1))


def _time(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
