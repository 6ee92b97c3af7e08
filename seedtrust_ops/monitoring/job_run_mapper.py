"""Says what Dagster knows of a run in JobRun's words: its status, arguments, priority, result, retries and failure.

It reads nothing itself and decides nothing about the row; whether the news count is `domain/job_runs`'.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from seedtrust_ops.domain.job_failures import RunFailure
from seedtrust_ops.domain.job_runs import RunFact
from seedtrust_ops.domain.json_safe import storable
from seedtrust_ops.job_policies import SEVERITY_TAG, job_policy
from seedtrust_ops.monitoring.failure_summary import Failure, failure_of
from seedtrust_ops.monitoring.run_events import RunEvents
from seedtrust_ops.orchestration.expiration_tags import has_expired
from seedtrust_ops.severity import Severity
from seedtrust_ops.tag_names import IN_JOB_RUNS_WORDS, PROGRESS_TAG, progress_in

STATUS = {status: IN_JOB_RUNS_WORDS[status.value] for status in dg.DagsterRunStatus}


def status_of(run: dg.DagsterRun) -> str:
    """Return the run's status in JobRun's words."""
    status = STATUS[run.status]
    return "EXPIRED" if status == "REVOKED" and has_expired(run) else status


def fact_of(record: dg.RunRecord, events: RunEvents | None = None) -> RunFact:
    """Return what a run record and the run's events say; a run that was not started has none to tell of."""
    run, events = record.dagster_run, events or RunEvents()
    status = status_of(run)
    return RunFact(
        run_id=run.run_id,
        task_name=run.job_name,
        status=status,
        arguments=_arguments(run.run_config),
        priority=_whole_number(run.tags.get("dagster/priority")),
        queued_at=record.create_timestamp,
        started_at=_time(record.start_time),
        finished_at=_time(record.end_time),
        result=events.result if events.returned else _progress(run, status),
        error=_error(record, status, events),
        retries=events.retries,
    )


def failure_to_record(record: dg.RunRecord, events: RunEvents) -> RunFailure:
    """Return what is to be recorded of a run that Dagster has as failed."""
    run, failure = record.dagster_run, failure_of(events)
    return RunFailure(
        run_id=run.run_id,
        task_name=run.job_name,
        severity=severity_of(run).value,
        exception_type=failure.exception_type,
        message=failure.message,
        meaning=failure.meaning,
        traceback=failure.traceback,
        context=_context(run, failure, events),
        occurred_at=_time(record.end_time) or record.update_timestamp,
    )


def severity_of(run: dg.DagsterRun) -> Severity:
    """Return the severity that the run's tag names, or its job's where there is no such tag or it is no severity."""
    try:
        return Severity(run.tags.get(SEVERITY_TAG, ""))
    except ValueError:
        return job_policy(run.job_name).severity


def _context(run: dg.DagsterRun, failure: Failure, events: RunEvents) -> dict[str, Any]:
    """Return what else is known of a failure; a run's arguments may name people and are in JobRun alone."""
    known = {
        "run_id": run.run_id,
        "step": failure.step,
        "retries": events.retries,
        "parent_run_id": run.parent_run_id,
        "schedule": run.tags.get("dagster/schedule_name"),
        "sensor": run.tags.get("dagster/sensor_name"),
        "backfill": run.tags.get("dagster/backfill"),
    }
    return {name: value for name, value in known.items() if value is not None}


def _error(record: dg.RunRecord, status: str, events: RunEvents) -> str | None:
    if status == "ERROR":
        return failure_of(events).message
    if status == "EXPIRED":
        waited = (_time(record.end_time) or record.update_timestamp) - record.create_timestamp
        return (
            f"The run waited {timedelta(seconds=round(waited.total_seconds()))} in the queue, longer than its job "
            "allows, and was cancelled. It did nothing."
        )
    return None


def _progress(run: dg.DagsterRun, status: str) -> dict[str, Any] | None:
    """Return how far a run has come that shows it; one that waits shows, at most, what its parent left in the tag."""
    shown = progress_in(run.tags.get(PROGRESS_TAG))
    if shown is None or status == "PENDING":
        return None
    return {"progress": {"done": shown[0], "total": shown[1]}}


def _arguments(run_config: Any) -> dict[str, Any]:
    """Return a run's arguments: the config of its one op, or the run config as it is where it has several."""
    ops = run_config.get("ops") if isinstance(run_config, dict) else None
    if isinstance(ops, dict) and len(ops) == 1:
        (op,) = ops.values()
        arguments = op.get("config") if isinstance(op, dict) else op
    else:
        arguments = run_config
    plain = storable(arguments or {})
    return plain if isinstance(plain, dict) else {"config": plain}


def _whole_number(text: str | None) -> int:
    """Return the number in a tag that anybody may write, within PostgreSQL's integer; 0 where it is none."""
    try:
        number = int(text or 0)
    except ValueError:
        return 0
    return max(-(2**31), min(number, 2**31 - 1))


def _time(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
