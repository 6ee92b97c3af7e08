"""Says of a failed run, in a sentence for people, how it failed, from what Dagster's events tell of it.

Dagster puts its own words around an op's last try ("Exceeded max_retries of 2") and has terse ones of its own for a
process that died; what is wanted is the sentence of the error that it began with. The words of an error that is none
of ours are left to the run's log: they may quote a person's name or an account number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.execution.plan.objects import ErrorSource, StepFailureData
from dagster_shared.error import SerializableErrorInfo

from seedtrust_ops.domain.json_safe import storable_text
from seedtrust_ops.monitoring.run_events import RunEvents
from seedtrust_ops.orchestration.user_facing_failures import KIND, MEANING, WHERE

LONGEST_MESSAGE = 4_000
LONGEST_TRACEBACK = 16_000
WORKER_LOST = "Detected run worker status"
"""How run monitoring begins what it says of a run whose process it found dead."""
TOO_LONG = "Exceeded maximum runtime"
UNFORESEEN = (
    "an error that no job foresees, most likely a mistake in the program. Its words are in the run's log, where it was "
    "is in the traceback."
)


@dataclass(frozen=True)
class Failure:
    """How a run failed: see `domain.job_failures.RunFailure`; `step` is the op or asset, None for the whole run."""

    exception_type: str
    message: str
    meaning: str
    traceback: str | None = None
    step: str | None = None


DIED = Failure(
    "RunProcessDied",
    "The run's process died or was killed before it could finish. What it had committed is kept, and the next run of "
    "the job takes up the rest.",
    "The run's process died or was killed before it could finish.",
)
ENDED = Failure(
    "RunProcessEnded",
    "The run's process was told to end before it could finish, although nobody cancelled the run: the worker was "
    "stopped, or its machine. What it had committed is kept, and the next run of the job takes up the rest.",
    "The run's process was told to end before it could finish.",
)
NEVER_STARTED = Failure(
    "RunNeverStarted",
    "The run left the queue and never started: the code server was away, or its process died at once. Nothing was "
    "done; the next run of the job does its work.",
    "The run left the queue and never started.",
)
NOT_LAUNCHED = Failure(
    "RunNotLaunched",
    "The run could not be started when it left the queue; most likely the code server was away. Nothing was done; the "
    "next run of the job does its work. The words of the error are in the run's log.",
    "The run could not be started when it left the queue.",
)
TOOK_TOO_LONG = Failure(
    "RunTookTooLong",
    "The run took longer than its job may take and was ended. What it had committed is kept; see in its log where it "
    "was, and launch the job again if it is not launched by itself.",
    "The run took longer than its job may take and was ended.",
)
MARKED = Failure(
    "MarkedAsFailed",
    "The run was marked as failed from outside; its events don't say why.",
    "The run was marked as failed from outside.",
)


def failure_of(events: RunEvents) -> Failure:
    """Return how a run failed that Dagster has as failed."""
    run_failure = events.run_failures[-1] if events.run_failures else None
    for event in events.step_failures:
        what = event.step_failure_data
        # An interrupted op failed because the run was ended, and the run's own failure says why.
        if what.error_source is not ErrorSource.INTERRUPT and not _has(what.error, "DagsterExecutionInterruptedError"):
            return _of_step(event.step_key, what)
    return _of_run(run_failure, events) if run_failure is not None else MARKED


def _of_step(step: str | None, failed: StepFailureData) -> Failure:
    told = failed.user_failure_data
    if told is not None and told.description:
        said = {name: str(value.value) for name, value in told.metadata.items()}
        return Failure(
            exception_type=said.get(KIND, "Failure"),
            message=_shortened(told.description, LONGEST_MESSAGE),
            meaning=said.get(MEANING, "A job said that it failed."),
            traceback=_shortened(said[WHERE], LONGEST_TRACEBACK) if WHERE in said else _trace(failed.error),
            step=step,
        )
    return _of_error(failed.error, step)


def _of_run(event: dg.DagsterEvent, events: RunEvents) -> Failure:
    data = event.event_specific_data
    reason = data.failure_reason if isinstance(data, JobFailureData) else None
    text = event.message or ""
    if text.startswith(WORKER_LOST):
        return DIED
    if TOO_LONG in text:
        return TOOK_TOO_LONG
    if reason is RunFailureReason.START_TIMEOUT:
        return NEVER_STARTED
    if reason is RunFailureReason.UNEXPECTED_TERMINATION:
        return ENDED
    if isinstance(data, JobFailureData) and data.error is not None:
        return _of_error(data.error, None)
    for engine_error in events.engine_errors:
        error = getattr(engine_error.event_specific_data, "error", None)
        return _of_error(error, None) if error is not None and _sentence(error) else NOT_LAUNCHED
    return MARKED


def _of_error(error: SerializableErrorInfo | None, step: str | None) -> Failure:
    """Return the failure of an error that was not made for people, or was and went past what makes it a failure."""
    if error is None:
        return MARKED
    name = _first(error).cls_name or "Exception"
    where = f"in {step}" if step is not None else "outside of the job's ops"
    return Failure(
        exception_type=name,
        message=_shortened(_sentence(error) or f"{name} {where}: {UNFORESEEN}", LONGEST_MESSAGE),
        meaning="An error that no job foresees: most likely a mistake in the program.",
        traceback=_trace(error),
        step=step,
    )


def _sentence(error: SerializableErrorInfo) -> str:
    """Return the sentence that an error of ours began with; nothing where the error is none of ours."""
    raised_as, _, sentence = _first(error).message.partition(": ")
    return sentence.strip() if raised_as.startswith("seedtrust_ops.") else ""


def _first(error: SerializableErrorInfo) -> SerializableErrorInfo:
    """Return the error that the others were raised from."""
    return list(_chain(error))[-1]


def _chain(error: SerializableErrorInfo | None) -> Iterator[SerializableErrorInfo]:
    while error is not None:
        yield error
        error = error.cause


def _has(error: SerializableErrorInfo | None, class_name: str) -> bool:
    return any(one.cls_name == class_name for one in _chain(error))


def _trace(error: SerializableErrorInfo | None) -> str | None:
    """Return where the error was raised: frames alone, for its messages may quote what they are about."""
    if error is None:
        return None
    return _shortened("".join(_first(error).stack), LONGEST_TRACEBACK) or None


def _shortened(text: Any, longest: int) -> str:
    """Return `text` without anything that PostgreSQL can't keep, its end left out where it is too long."""
    plain = storable_text(text).strip()
    return plain if len(plain) <= longest else f"{plain[: longest - 1]}…"
