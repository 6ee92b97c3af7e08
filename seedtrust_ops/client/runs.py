"""The state of a run for the applications, with JobRun's statuses, built from Dagster's GraphQL results.

The requests are in `workflows`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from seedtrust_ops.tag_names import (
    APPLICATION_TAG,
    EXPIRED_TAG,
    JOB_RUN_STATUSES,
    PERSON_TAG,
    PROGRESS_TAG,
    RETURN_VALUE_LABEL,
    UNKNOWN_STATUS,
    parse_progress,
)

EXPIRED_ERROR = "Expired: waited in the queue longer than this job's limit. No work was done."
UNEXPECTED_ERROR = "The run failed with an unexpected error. See the run's page in the Dagster UI for details."


class RunStatus(StrEnum):
    """The values of JobRun's `status`."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    COMPLETED = "COMPLETED"
    ERROR = "ERROR"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"

    @property
    def is_finished(self) -> bool:
        """Whether a run with this status has finished."""
        return self not in (RunStatus.PENDING, RunStatus.STARTED)


@dataclass(frozen=True)
class Progress:
    """The number of completed steps of a run, and their total."""

    done: int
    total: int


@dataclass(frozen=True)
class RunState:
    """The state of a run; times in UTC."""

    run_id: str
    job: str
    status: RunStatus
    is_stopping: bool
    """Whether it was revoked while running and has not stopped yet."""
    progress: Progress | None
    result: Any
    """The job's return value as JSON; None until the run has completed."""
    error: str | None
    """Why the run failed or expired, as a message for people."""
    launched_by: str | None
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True)
class RunOutcome:
    """The result or error of a run, from its events."""

    result: Any = None
    error: str | None = None


def build_run_state(run: Mapping[str, Any], outcome: RunOutcome | None = None) -> RunState:
    """Return the state of a run from its record, and its outcome if the run completed or failed."""
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    status = RunStatus(JOB_RUN_STATUSES.get(run["status"], UNKNOWN_STATUS))
    if status is RunStatus.REVOKED and tags.get(EXPIRED_TAG) == run["runId"]:
        status = RunStatus.EXPIRED
    progress = parse_progress(tags.get(PROGRESS_TAG))
    outcome = outcome or RunOutcome(error=EXPIRED_ERROR if status is RunStatus.EXPIRED else None)
    return RunState(
        run_id=run["runId"],
        job=run["jobName"],
        status=status,
        is_stopping=run["status"] == "CANCELING",
        progress=Progress(*progress) if progress else None,
        result=outcome.result,
        error=outcome.error or (UNEXPECTED_ERROR if status is RunStatus.ERROR else None),
        launched_by=tags.get(PERSON_TAG) or tags.get(APPLICATION_TAG),
        queued_at=datetime.fromtimestamp(run["creationTime"], UTC),
        started_at=_parse_time(run["startTime"]),
        finished_at=_parse_time(run["endTime"]),
    )


def outcome_from_events(events: Iterable[Mapping[str, Any]]) -> RunOutcome:
    """Return the outcome from a run's events: the return value (by step if there are several) or why it failed."""
    returned: dict[str, Any] = {}
    error = None
    for event in events:
        if event["__typename"] == "HandledOutputEvent":
            for entry in event["metadataEntries"]:
                if entry["label"] == RETURN_VALUE_LABEL and "jsonString" in entry:
                    returned[event["stepKey"]] = json.loads(entry["jsonString"]).get("value")
        elif event["__typename"] == "ExecutionStepFailureEvent":
            error = error or (event["failureMetadata"] or {}).get("description")
    return RunOutcome(returned if len(returned) > 1 else next(iter(returned.values()), None), error)


def _parse_time(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
