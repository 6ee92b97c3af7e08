"""Dagster's in-process executor, with three differences:

- A run that waited in the queue longer than its limit ends before its first op. After a long outage the daemon may
  start such a run before `job_run_sensor` cancels it.
- A canceled run ends. Dagster treats the interruption of an op with a retry policy as a failure and retries it.
- A run that is canceled while it starts does no work. Dagster writes back a run's status and tags as it read them
  earlier, so a start can overwrite a cancellation.
See docs/decisions/run-execution.md.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from seedtrust_ops.dagster_internals import (
    CANCELLATION,
    EXPIRY,
    RUN_IDENTITY,
    InProcessExecutor,
    SerializableErrorInfo,
    is_available,
)
from seedtrust_ops.orchestration.queue_expiration import mark_expired, waited_too_long

_in_process: Any = dg.in_process_executor


class _Executor(InProcessExecutor):
    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        instance, run = plan_context.instance, plan_context.dagster_run
        if _cancellation_requested(instance, run.run_id):
            # The start may have overwritten the status, and Dagster ends the run according to its status.
            instance.report_run_canceling(run, message="Canceled while starting. No work was done.")
            raise dg.DagsterExecutionInterruptedError
        if waited_too_long(instance, run):
            mark_expired(instance, run)
            instance.report_run_canceling(
                run, message="Expired: waited in the queue longer than this job's limit. No work was done."
            )
            # Dagster raises the same error in a run that is being canceled.
            raise dg.DagsterExecutionInterruptedError
        for event in super().execute(plan_context, execution_plan):
            yield event
            if event.is_step_up_for_retry and _was_interrupted(event) and _should_stop(instance, run.run_id):
                raise dg.DagsterExecutionInterruptedError


def _cancellation_requested(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Return whether cancellation was requested; unlike the status, that event is never overwritten."""
    requests = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.RUN_CANCELING, limit=1)
    return len(requests.records) > 0


def _was_interrupted(event: dg.DagsterEvent) -> bool:
    error: SerializableErrorInfo | None = event.step_retry_data.error
    while error is not None:
        if error.cls_name == dg.DagsterExecutionInterruptedError.__name__:
            return True
        error = error.cause
    return False


def _should_stop(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Return whether the run is being canceled or already ended; a worker that shuts down cancels no run."""
    run = instance.get_run_by_id(run_id)
    return run is None or run.is_finished or run.status is dg.DagsterRunStatus.CANCELING


def _create(init_context: dg.InitExecutorContext) -> dg.Executor:
    default: InProcessExecutor = _in_process.executor_creation_fn(init_context)
    if not all(map(is_available, (CANCELLATION, EXPIRY, RUN_IDENTITY))):
        # Payment runs refuse to start then (`require_payment_internals`).
        return default
    return _Executor(default.retries, default.step_dependency_config)


in_process = dg.ExecutorDefinition(
    name="in_process",
    config_schema=_in_process.config_schema,
    executor_creation_fn=_create,
    description="Runs all ops in the run's own process. Skips them if the run expired in the queue or was canceled.",
)
