"""Summarizes why a run failed, in a sentence for people, from Dagster's events.

Dagster wraps the error of an op's last attempt in its own message ("Exceeded max_retries of 2") and has terse messages
for a crashed process; people need the message of the original error. The message of an unexpected error stays in the
run's log, because it may quote a person's name or an account number.
See docs/decisions/failure-messages.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg

from seedtrust_ops.dagster_internals import (
    FAILURE_SUMMARIES,
    ErrorSource,
    JobFailureData,
    RunFailureReason,
    SerializableErrorInfo,
    StepFailureData,
    is_available,
)
from seedtrust_ops.domain.json_safe import to_json_safe_text
from seedtrust_ops.monitoring.run_events import RunEvents
from seedtrust_ops.orchestration.user_facing_failures import ERROR_MEANING, ERROR_TYPE, INPUT_ERROR, TRACEBACK

MAX_MESSAGE_CHARS = 4_000
MAX_TRACEBACK_CHARS = 16_000
WORKER_LOST_PREFIX = "Detected run worker status"
"""How Dagster's run monitoring starts its message about a run whose process crashed."""
MAX_RUNTIME_EXCEEDED = "Exceeded maximum runtime"
UNEXPECTED_ERROR = (
    "an unexpected error, most likely a bug. Its message is in the run's log; the traceback shows where it was raised."
)


@dataclass(frozen=True)
class Failure:
    """Why a run failed; the fields are those of `domain.job_failures.RunFailure`.

    `step` is the op or asset, None if the run failed as a whole. `is_input_error` means that its cause is what a person
    gave the run.
    """

    exception_type: str
    message: str
    meaning: str
    traceback: str | None = None
    step: str | None = None
    is_input_error: bool = False


PROCESS_DIED = Failure(
    "RunProcessDied",
    "The run's process crashed or was killed before it finished. Committed work is kept; the next run of the job does "
    "the rest.",
    "The run's process crashed or was killed before it finished.",
)
PROCESS_ENDED = Failure(
    "RunProcessEnded",
    "The run's process was terminated before it finished, although nobody canceled the run: the worker or its machine "
    "was shut down. Committed work is kept; the next run of the job does the rest.",
    "The run's process was terminated before it finished.",
)
NEVER_STARTED = Failure(
    "RunNeverStarted",
    "The run left the queue but never started: the code server was down, or the run's process crashed at once. No work "
    "was done; the next run of the job does it.",
    "The run left the queue but never started.",
)
NOT_LAUNCHED = Failure(
    "RunNotLaunched",
    "The run could not be launched when it left the queue, most likely because the code server was down. No work was "
    "done; the next run of the job does it. The error is in the run's log.",
    "The run could not be launched when it left the queue.",
)
TOOK_TOO_LONG = Failure(
    "RunTookTooLong",
    "The run exceeded its job's maximum runtime and was terminated. Committed work is kept. Check its log for where it "
    "was, and launch the job again unless it has a schedule or sensor.",
    "The run exceeded its job's maximum runtime and was terminated.",
)
CAUSE_UNREADABLE = Failure(
    "CauseUnreadable",
    "The run failed, and the installed version of Dagster does not let JobRun read why. See the run's page in the "
    "Dagster UI.",
    "The run failed for a reason that JobRun could not read.",
)
MARKED_AS_FAILED = Failure(
    "MarkedAsFailed",
    "The run was marked as failed by Dagster or a person; its events do not say why. See the run's page in the Dagster "
    "UI.",
    "The run was marked as failed by Dagster or a person.",
)


def summarize_failure(events: RunEvents) -> Failure:
    """Return why a failed run failed."""
    if not is_available(FAILURE_SUMMARIES):
        return CAUSE_UNREADABLE
    run_failure = events.run_failures[-1] if events.run_failures else None
    for event in events.step_failures:
        failure = event.step_failure_data
        # An interrupted op failed because the run was terminated, and the run's own failure says why.
        if failure.error_source is not ErrorSource.INTERRUPT and not _has(
            failure.error, "DagsterExecutionInterruptedError"
        ):
            return _from_step(event.step_key, failure)
    return _from_run(run_failure, events) if run_failure is not None else MARKED_AS_FAILED


def _from_step(step: str | None, failed: StepFailureData) -> Failure:
    data = failed.user_failure_data
    if data is not None and data.description:
        metadata = {name: str(value.value) for name, value in data.metadata.items()}
        return Failure(
            exception_type=metadata.get(ERROR_TYPE, "Failure"),
            message=_truncate(data.description, MAX_MESSAGE_CHARS),
            meaning=metadata.get(ERROR_MEANING, "A job reported a failure."),
            traceback=_truncate(metadata[TRACEBACK], MAX_TRACEBACK_CHARS)
            if TRACEBACK in metadata
            else _traceback(failed.error),
            step=step,
            is_input_error=INPUT_ERROR in metadata,
        )
    return _from_error(failed.error, step)


def _from_run(event: dg.DagsterEvent, events: RunEvents) -> Failure:
    data = event.event_specific_data
    reason = data.failure_reason if isinstance(data, JobFailureData) else None
    text = event.message or ""
    if text.startswith(WORKER_LOST_PREFIX):
        return PROCESS_DIED
    if MAX_RUNTIME_EXCEEDED in text:
        return TOOK_TOO_LONG
    if reason is RunFailureReason.START_TIMEOUT:
        return NEVER_STARTED
    if reason is RunFailureReason.UNEXPECTED_TERMINATION:
        return PROCESS_ENDED
    if isinstance(data, JobFailureData) and data.error is not None:
        return _from_error(data.error, None)
    for engine_error in events.engine_errors:
        error = getattr(engine_error.event_specific_data, "error", None)
        return _from_error(error, None) if error is not None and _own_message(error) else NOT_LAUNCHED
    return MARKED_AS_FAILED


def _from_error(error: SerializableErrorInfo | None, step: str | None) -> Failure:
    """Return the failure for an error that did not pass through `user_facing_failures`."""
    if error is None:
        return MARKED_AS_FAILED
    name, own_message = _first(error).cls_name or "Exception", _own_message(error)
    where = f"in {step}" if step is not None else "outside the job's ops"
    return Failure(
        exception_type=name,
        message=_truncate(own_message or f"{name} {where}: {UNEXPECTED_ERROR}", MAX_MESSAGE_CHARS),
        meaning="A job reported a failure." if own_message else "An unexpected error, most likely a bug.",
        traceback=_traceback(error),
        step=step,
    )


def _own_message(error: SerializableErrorInfo) -> str:
    """Return the message of the original error if it is a class of this package, else an empty string."""
    class_name, _, message = _first(error).message.partition(": ")
    return message.strip() if class_name.startswith("seedtrust_ops.") else ""


def _first(error: SerializableErrorInfo) -> SerializableErrorInfo:
    """Return the original error, from which the others were raised."""
    return list(_chain(error))[-1]


def _chain(error: SerializableErrorInfo | None) -> Iterator[SerializableErrorInfo]:
    while error is not None:
        yield error
        error = error.cause


def _has(error: SerializableErrorInfo | None, class_name: str) -> bool:
    return any(one.cls_name == class_name for one in _chain(error))


def _traceback(error: SerializableErrorInfo | None) -> str | None:
    """Return the stack frames without the error's message, which may quote data."""
    if error is None:
        return None
    return _truncate("".join(_first(error).stack), MAX_TRACEBACK_CHARS) or None


def _truncate(text: Any, max_chars: int) -> str:
    """Return `text` without characters that PostgreSQL can't store, truncated to `max_chars`."""
    plain = to_json_safe_text(text).strip()
    return plain if len(plain) <= max_chars else f"{plain[: max_chars - 1]}…"
