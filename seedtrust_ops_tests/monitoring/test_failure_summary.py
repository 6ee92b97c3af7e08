"""Every way a run can fail, reproduced on a real instance, is summarized in a sentence without secrets."""

import sys
from collections.abc import Callable
from select import select as select_ready
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType, EngineEventData, JobFailureData, RunFailureReason
from dagster._utils.error import serializable_error_info_from_exc_info
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.errors import ConfigurationError, SeedTrustError, TransientError
from seedtrust_ops.orchestration.io_manager import in_memory_io_manager
from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops.orchestration.user_facing_failures import user_facing_failures
from seedtrust_ops.tables import ErrorRecord, OutgoingEvent
from seedtrust_ops_tests.monitoring.sample_runs import STATUS, mirror_runs, new_run, row, set_status
from seedtrust_ops_tests.support.waiters import wait_until

SECRET = "Jane Doe, account 000123456789"
MESSAGE = "The printer has no paper. Refill it."


class NoPaper(SeedTrustError):
    """The printer has no paper.

    A second paragraph that is not part of the meaning.
    """


class PrinterBusy(TransientError):
    """The printer is busy."""


class _UniqueViolation(Exception):
    sqlstate = "23505"


def raise_no_paper() -> None:
    raise NoPaper(MESSAGE)


def raise_busy() -> None:
    raise PrinterBusy(MESSAGE)


def raise_key_error() -> None:
    raise KeyError(SECRET)


def raise_integrity_error() -> None:
    raise IntegrityError("insert", {}, _UniqueViolation(SECRET))


def raise_configuration_error() -> None:
    raise ConfigurationError(MESSAGE)


def raise_dagster_failure() -> None:
    raise dg.Failure(MESSAGE, allow_retries=False)


@pytest.mark.parametrize(
    ("raise_error", "exception_type", "message", "meaning", "retries"),
    [
        (raise_no_paper, "NoPaper", MESSAGE, "The printer has no paper.", 0),
        (raise_busy, "PrinterBusy", MESSAGE, "The printer is busy.", 2),
        (raise_key_error, "KeyError", "KeyError in failing: an unexpected error", "An unexpected error", 2),
        (raise_integrity_error, "IntegrityError", "The database rejected a statement", "Wraps a DB-API", 0),
        (raise_dagster_failure, "Failure", MESSAGE, "A job reported a failure.", 0),
        (raise_configuration_error, "ConfigurationError", MESSAGE, "An environment variable is missing", 0),
    ],
)
def test_op_failure_is_summarized_by_its_own_error_after_retries(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    monkeypatch: pytest.MonkeyPatch,
    raise_error: Callable[[], None],
    exception_type: str,
    message: str,
    meaning: str,
    retries: int,
) -> None:
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda _policy, _attempt: 0)

    @single_op_job(kind="python", shadow=None)
    def failing(_context: dg.OpExecutionContext) -> None:
        raise_error()

    resolved = dg.Definitions(jobs=[failing], resources={"io_manager": in_memory_io_manager}).resolve_job_def("failing")
    run_id = resolved.execute_in_process(instance=instance, raise_on_error=False).run_id
    mirror_runs(instance)
    job_run = row(sessions, run_id)
    assert (job_run.status, job_run.retries) == ("ERROR", retries)
    assert job_run.error is not None
    assert job_run.error.startswith(message)
    error, event = _recorded_failure(sessions)
    assert (error.severity, error.exception_type, error.message) == ("HIGH", exception_type, job_run.error)
    assert error.context == {"run_id": run_id, "step": "failing", "retries": retries}
    assert error.traceback is not None
    assert "raise " in error.traceback
    assert event["exception"]["type"] == exception_type
    assert event["exception"]["message"].startswith(meaning)
    assert SECRET not in f"{error.message}{error.traceback}{error.context}{event}{job_run.error}"


def test_dagster_shows_the_original_error_after_the_last_retry(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda _policy, _attempt: 0)

    @single_op_job(kind="python", shadow=None)
    def failing(_context: dg.OpExecutionContext) -> None:
        raise_busy()

    result = failing.execute_in_process(instance=instance, raise_on_error=False)
    (failure,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert sum(event.is_step_up_for_retry for event in result.all_events) == 2
    assert failure.error is not None
    assert failure.error.message.strip() == f"dagster._core.definitions.events.Failure: {MESSAGE}"


def exceed_idle_in_transaction_timeout(sessions: sessionmaker[Session]) -> None:
    with user_facing_failures(), sessions() as session:
        session.execute(text("set idle_in_transaction_session_timeout = '10ms'"))
        server = session.connection().connection.driver_connection
        assert server is not None
        wait_until(lambda: select_ready([server.fileno()], [], [], 0)[0], what="the server closing the connection")
        session.execute(text("select 1"))


def test_idle_in_transaction_timeout_is_retried(sessions: sessionmaker[Session]) -> None:
    with pytest.raises(dg.Failure, match="idle too long") as raised:
        exceed_idle_in_transaction_timeout(sessions)
    assert raised.value.allow_retries


def launch_error(error: Exception) -> EngineEventData:
    try:
        raise error
    except type(error):
        return EngineEventData.engine_error(serializable_error_info_from_exc_info(sys.exc_info()))


def report_process_lost(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_run_failed(run, f"Detected run worker status FAILED: gone. Marking run {run.run_id} as failed.")


def report_too_long(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_run_failed(run, "Exceeded maximum runtime of 900 seconds.")


def report_start_timeout(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    data = JobFailureData(error=None, failure_reason=RunFailureReason.START_TIMEOUT)
    instance.report_run_failed(run, "Run timed out due to taking longer than 180 seconds to start.", data)


def report_terminated(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    data = JobFailureData(error=None, failure_reason=RunFailureReason.UNEXPECTED_TERMINATION)
    event = DagsterEvent(
        DagsterEventType.PIPELINE_FAILURE.value, run.job_name, message="interrupted", event_specific_data=data
    )
    instance.report_dagster_event(event, run_id=run.run_id)


def report_launch_error(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_engine_event("Caught an error", run, launch_error(ConnectionError(SECRET)))
    instance.report_run_failed(run)


def report_own_launch_error(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_engine_event("Caught an error", run, launch_error(ConfigurationError(MESSAGE)))
    instance.report_run_failed(run)


def report_failed(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_run_failed(run)


def mark_failed_without_event_data(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    set_status(instance, run.run_id, STATUS.FAILURE)


@pytest.mark.parametrize(
    ("end", "exception_type", "message"),
    [
        (report_process_lost, "RunProcessDied", "The run's process crashed or was killed before it finished."),
        (report_too_long, "RunTookTooLong", "The run exceeded its job's maximum runtime"),
        (report_start_timeout, "RunNeverStarted", "The run left the queue but never started"),
        (report_terminated, "RunProcessEnded", "The run's process was terminated"),
        (report_launch_error, "RunNotLaunched", "The run could not be launched when it left the queue"),
        (report_own_launch_error, "ConfigurationError", MESSAGE),
        (report_failed, "MarkedAsFailed", "The run was marked as failed by Dagster or a person"),
        (mark_failed_without_event_data, "MarkedAsFailed", "The run was marked as failed by Dagster or a person"),
    ],
)
def test_run_that_failed_as_a_whole_is_summarized_in_a_sentence(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    end: Callable[[dg.DagsterInstance, dg.DagsterRun], None],
    exception_type: str,
    message: str,
) -> None:
    run_id = new_run(instance, job_name="off_site_tracking")
    set_status(instance, run_id, STATUS.STARTED)
    run = instance.get_run_by_id(run_id)
    assert run is not None
    end(instance, run)
    mirror_runs(instance)
    job_run = row(sessions, run_id)
    assert job_run.status == "ERROR"
    assert job_run.error is not None
    assert job_run.error.startswith(message)
    error, event = _recorded_failure(sessions)
    # The run has no severity tag, so its job's severity applies.
    assert (error.exception_type, error.message, error.severity) == (exception_type, job_run.error, "LOW")
    assert SECRET not in f"{error.message}{error.traceback}{event}"


def _recorded_failure(sessions: sessionmaker[Session]) -> tuple[ErrorRecord, dict[str, Any]]:
    """Return the only `errors` row, and the exception event queued for PostHog."""
    with sessions() as session:
        error = session.scalars(select(ErrorRecord)).one()
        bodies = session.scalars(select(OutgoingEvent.body)).all()
    (event,) = [body for body in bodies if "exception" in body]
    return error, event
