"""Executes all ops of a run in the run's own process, as Dagster's in-process executor does, but for three things.

A run that waited in the queue for too long ends before its first op: a daemon that was away for long may start it
before `monitoring/queue_expiry` looks. And a run that is cancelled ends: Dagster takes the interruption of an op that
has a retry policy for a failure, and tries it again. And one that is cancelled while it starts does nothing: Dagster
writes a run's status, and its tags, as it read them before, so that a start may undo a cancellation.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.executor.in_process import InProcessExecutor
from dagster_shared.error import SerializableErrorInfo

from seedtrust_ops.orchestration.expiration_tags import mark_expired, waited_too_long

_in_process: Any = dg.in_process_executor


class _Executor(InProcessExecutor):
    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        instance, run = plan_context.instance, plan_context.dagster_run
        if _was_cancelled(instance, run.run_id):
            # The status may have been written over by this run's start, and says how Dagster ends the run.
            instance.report_run_canceling(run, message="The run was cancelled while it started. It does nothing.")
            raise DagsterExecutionInterruptedError
        if waited_too_long(instance, run):
            mark_expired(instance, run)
            instance.report_run_canceling(
                run, message="The run left the queue later than its job allows. It ends without doing anything."
            )
            # What Dagster itself raises in a run that is being cancelled.
            raise DagsterExecutionInterruptedError
        for event in super().execute(plan_context, execution_plan):
            yield event
            if event.is_step_up_for_retry and _was_interrupted(event) and _is_to_end(instance, run.run_id):
                raise DagsterExecutionInterruptedError


def _was_cancelled(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Return whether somebody has asked to cancel the run: unlike the status, nothing writes over that event."""
    asked = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.RUN_CANCELING, limit=1)
    return len(asked.records) > 0


def _was_interrupted(event: dg.DagsterEvent) -> bool:
    error: SerializableErrorInfo | None = event.step_retry_data.error
    while error is not None:
        if error.cls_name == DagsterExecutionInterruptedError.__name__:
            return True
        error = error.cause
    return False


def _is_to_end(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Return whether the run is being cancelled, or has ended without its process; a worker that stops cancels none."""
    run = instance.get_run_by_id(run_id)
    return run is None or run.is_finished or run.status is dg.DagsterRunStatus.CANCELING


def _create(init_context: dg.InitExecutorContext) -> InProcessExecutor:
    plain: InProcessExecutor = _in_process.executor_creation_fn(init_context)
    return _Executor(plain.retries, plain.step_dependency_config)


in_process = dg.ExecutorDefinition(
    name="in_process",
    config_schema=_in_process.config_schema,
    executor_creation_fn=_create,
    description="Runs all ops in the run's own process, unless the run waited for too long: then none.",
)
