"""A canceled run ends even though its ops have a retry policy; an interrupted run that was not canceled continues."""

import signal

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution.api import execute_run_iterator
from dagster._utils.interrupts import capture_interrupts
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops_tests.monitoring.sample_runs import mirror_runs, row


@pytest.mark.parametrize(
    ("canceled", "attempts", "status"),
    [(True, 1, "REVOKED"), (False, 2, "COMPLETED")],
    ids=["canceled", "not canceled"],
)
def test_interrupted_op_is_retried_only_if_its_run_was_not_canceled(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    monkeypatch: pytest.MonkeyPatch,
    canceled: bool,
    attempts: int,
    status: str,
) -> None:
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda _policy, _attempt: 0)
    started: list[int] = []

    @single_op_job(kind="python", shadow=None)
    def interrupted_once(context: dg.OpExecutionContext) -> None:
        started.append(context.retry_number)
        if context.retry_number == 0:
            if canceled:
                context.instance.report_run_canceling(context.run)
            # Dagster raises this in the op when its process is asked to end.
            raise DagsterExecutionInterruptedError

    run = instance.create_run_for_job(interrupted_once)
    list(execute_run_iterator(InMemoryJob(interrupted_once), run, instance))
    mirror_runs(instance)
    job_run = row(sessions, run.run_id)
    assert (len(started), job_run.status, job_run.error) == (attempts, status, None)


@pytest.mark.parametrize("interrupted", [False, True], ids=["worker not found", "worker interrupted"])
def test_run_canceled_while_starting_does_no_work(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session], interrupted: bool
) -> None:
    started: list[str] = []

    @single_op_job(kind="python", shadow=None)
    def never_started(context: dg.OpExecutionContext) -> None:
        started.append(context.run_id)

    stale_run = instance.create_run_for_job(never_started)
    instance.report_run_canceling(stale_run)
    with capture_interrupts():
        if interrupted:
            signal.raise_signal(signal.SIGINT)
        list(execute_run_iterator(InMemoryJob(never_started), stale_run, instance))
    mirror_runs(instance)
    assert (started, row(sessions, stale_run.run_id).status) == ([], "REVOKED")
    run = instance.get_run_by_id(stale_run.run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.CANCELED
