"""A run as the applications see it, in JobRun's words, read from what Dagster's GraphQL says of it.

How Dagster is asked is `dialogues`'.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from seedtrust_ops.tag_names import EXPIRED_TAG, IN_JOB_RUNS_WORDS, PROGRESS_TAG, RETURNED, progress_in

PERSON_TAG = "user"
"""By this tag Dagster's list of runs shows who launched one."""
APPLICATION_TAG = "seedtrust/launched_from"
REQUEST_TAG = "seedtrust/request_id"
EXPIRED = "The run waited in the queue for longer than its job allows, and was cancelled. It did nothing."
UNFORESEEN = "The run failed, and no job foresaw how. Its page in Dagster's UI has the words of the error."


class RunStatus(StrEnum):
    """What JobRun's `status` says."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    COMPLETED = "COMPLETED"
    ERROR = "ERROR"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"

    @property
    def is_over(self) -> bool:
        """Whether a run with it has ended."""
        return self not in (RunStatus.PENDING, RunStatus.STARTED)


@dataclass(frozen=True)
class Progress:
    """How many of its steps a run has behind it."""

    done: int
    total: int


@dataclass(frozen=True)
class RunState:
    """How a run stands; times in UTC."""

    run_id: str
    job: str
    status: RunStatus
    is_ending: bool
    """Whether it was revoked while it ran, and has yet to stop."""
    progress: Progress | None
    result: Any
    """What the job returned, as JSON has it; None while it has not."""
    error: str | None
    """Why it failed or expired: a sentence for people."""
    launched_by: str | None
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True)
class Ending:
    """What the events of a run say of how it ended."""

    result: Any = None
    error: str | None = None


def run_state(run: Mapping[str, Any], ending: Ending | None = None) -> RunState:
    """Return how a run stands by its record; `ending` is known of runs that have ended by themselves."""
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    status = RunStatus(IN_JOB_RUNS_WORDS[run["status"]])
    if status is RunStatus.REVOKED and tags.get(EXPIRED_TAG) == run["runId"]:
        status = RunStatus.EXPIRED
    shown = progress_in(tags.get(PROGRESS_TAG))
    ending = ending or Ending(error=EXPIRED if status is RunStatus.EXPIRED else None)
    return RunState(
        run_id=run["runId"],
        job=run["jobName"],
        status=status,
        is_ending=run["status"] == "CANCELING",
        progress=Progress(*shown) if shown else None,
        result=ending.result,
        error=ending.error or (UNFORESEEN if status is RunStatus.ERROR else None),
        launched_by=tags.get(PERSON_TAG) or tags.get(APPLICATION_TAG),
        queued_at=datetime.fromtimestamp(run["creationTime"], UTC),
        started_at=_time(run["startTime"]),
        finished_at=_time(run["endTime"]),
    )


def ending_in(events: Iterable[Mapping[str, Any]]) -> Ending:
    """Return what a run's events tell: what its op returned (by step where there are several), and why it failed."""
    returned: dict[str, Any] = {}
    error = None
    for event in events:
        if event["__typename"] == "HandledOutputEvent":
            for entry in event["metadataEntries"]:
                if entry["label"] == RETURNED and "jsonString" in entry:
                    returned[event["stepKey"]] = json.loads(entry["jsonString"]).get("value")
        elif event["__typename"] == "ExecutionStepFailureEvent":
            error = error or (event["failureMetadata"] or {}).get("description")
    return Ending(returned if len(returned) > 1 else next(iter(returned.values()), None), error)


def _time(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
