"""Keeps a run that waited in the queue for longer than its job allows from doing anything.

`monitoring/queue_expiry` cancels such runs while they wait. A daemon that was away for long may start them before
that looks: then the run itself ends, as cancelled and expired, before its first op.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.executor.in_process import InProcessExecutor

from seedtrust_ops.job_rules import EXPIRES_TAG, rules_of

EXPIRED_TAG = "seedtrust/expired"
"""Its value is the run's own id: a run that is launched again from an expired one inherits the tag, and is not it."""


def expires_after(run: dg.DagsterRun) -> timedelta | None:
    """Return how long the run may be queued: what its tag says, or else its job; None where it never expires."""
    try:
        return timedelta(seconds=float(run.tags[EXPIRES_TAG]))
    except (KeyError, ValueError, OverflowError):
        return rules_of(run.job_name).expires_after


def has_expired(run: dg.DagsterRun) -> bool:
    """Return whether the run was found to have waited too long; where it was then cancelled, that is why."""
    return run.tags.get(EXPIRED_TAG) == run.run_id


def mark_expired(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Put on record that the run waited too long; to be done before it is cancelled."""
    instance.add_run_tags(run.run_id, {EXPIRED_TAG: run.run_id})


def waited_too_long(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Return whether a run that is about to begin left the queue later than its job allows.

    One that never was in the queue (`dagster job execute`) has not waited.
    """
    allowed = expires_after(run)
    record = instance.get_run_record_by_id(run.run_id)
    if allowed is None or record is None or datetime.now(UTC) - record.create_timestamp <= allowed:
        return False
    moments = instance.get_run_stats(run.run_id)
    queued, left = moments.enqueued_time, moments.launch_time
    return queued is not None and left is not None and timedelta(seconds=left - queued) > allowed


_in_process: Any = dg.in_process_executor


class _Executor(InProcessExecutor):
    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        instance, run = plan_context.instance, plan_context.dagster_run
        if waited_too_long(instance, run):
            mark_expired(instance, run)
            instance.report_run_canceling(
                run, message="The run left the queue later than its job allows. It ends without doing anything."
            )
            # What Dagster itself raises in a run that is being cancelled.
            raise DagsterExecutionInterruptedError
        yield from super().execute(plan_context, execution_plan)


def _create(init_context: dg.InitExecutorContext) -> InProcessExecutor:
    plain: InProcessExecutor = _in_process.executor_creation_fn(init_context)
    return _Executor(plain.retries, plain.step_dependency_config)


in_process_unless_expired = dg.ExecutorDefinition(
    name="in_process",
    config_schema=_in_process.config_schema,
    executor_creation_fn=_create,
    description="Runs all ops in the run's own process, unless the run waited for too long: then none.",
)
"""Dagster's in-process executor, with that one look first."""
