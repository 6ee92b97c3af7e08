"""A run that is cancelled ends, although its ops have a retry policy, and is revoked; one that is not goes on."""

import signal

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution.api import execute_run_iterator
from dagster._utils.interrupts import capture_interrupts
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures
from seedtrust_ops.severity import Severity
from seedtrust_ops_tests.monitoring.sample_runs import look, row


@pytest.mark.parametrize(("cancelled", "tries", "status"), [(True, 1, "REVOKED"), (False, 2, "COMPLETED")])
def test_an_interrupted_op_is_tried_again_only_where_nobody_cancelled_its_run(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    monkeypatch: pytest.MonkeyPatch,
    cancelled: bool,
    tries: int,
    status: str,
) -> None:
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda _policy, _attempt: 0)
    begun: list[int] = []

    @dg.op(retry_policy=RETRIES)
    def interrupted_once(context: dg.OpExecutionContext) -> None:
        begun.append(context.retry_number)
        if context.retry_number == 0:
            if cancelled:
                context.instance.report_run_canceling(context.run)
            with user_facing_failures():
                # What Dagster raises in the op when its process is told to end.
                raise DagsterExecutionInterruptedError

    job = single_op_job(interrupted_once, Severity.LOW, legacy_name="none")
    run = instance.create_run_for_job(job)
    list(execute_run_iterator(InMemoryJob(job), run, instance))
    look(instance)
    kept = row(sessions, run.run_id)
    assert (len(begun), kept.status, kept.error) == (tries, status, None)


@pytest.mark.parametrize("interrupted", [False, True], ids=["its worker not found", "its worker interrupted"])
def test_a_run_does_nothing_whose_cancellation_was_written_over_by_its_start(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session], interrupted: bool
) -> None:
    begun: list[str] = []

    @dg.op
    def never_begun(context: dg.OpExecutionContext) -> None:
        begun.append(context.run_id)

    job = single_op_job(never_begun, Severity.LOW, legacy_name="none")
    as_its_worker_read_it = instance.create_run_for_job(job)
    instance.report_run_canceling(as_its_worker_read_it)
    with capture_interrupts():
        if interrupted:
            signal.raise_signal(signal.SIGINT)
        list(execute_run_iterator(InMemoryJob(job), as_its_worker_read_it, instance))
    look(instance)
    assert (begun, row(sessions, as_its_worker_read_it.run_id).status) == ([], "REVOKED")
    run = instance.get_run_by_id(as_its_worker_read_it.run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.CANCELED
