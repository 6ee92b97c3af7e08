"""Every way in which a run can fail, made to happen in a real instance, is told in a sentence that has no secret."""

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
from seedtrust_ops.orchestration.io_manager import returned_values
from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import ErrorRecord, OutgoingEvent
from seedtrust_ops_tests.monitoring.sample_runs import STATUS, becomes, look, new_run, row
from seedtrust_ops_tests.support.waiters import wait_until

SECRET = "Jane Doe, account 000123456789"
SENTENCE = "There is no ink. Fill it up."


class NoInk(SeedTrustError):
    """The pen is empty.

    A second paragraph that nobody outside needs.
    """


class InkFrozen(TransientError):
    """The ink is frozen."""


class _Refusal(Exception):
    sqlstate = "23505"


def raise_no_ink() -> None:
    raise NoInk(SENTENCE)


def raise_frozen() -> None:
    raise InkFrozen(SENTENCE)


def raise_mistake() -> None:
    raise KeyError(SECRET)


def raise_refusal() -> None:
    raise IntegrityError("insert", {}, _Refusal(SECRET))


def raise_unset() -> None:
    raise ConfigurationError(SENTENCE)


def raise_past_the_conventions() -> None:
    raise dg.Failure(SENTENCE, allow_retries=False)


@pytest.mark.parametrize(
    ("trouble", "outside", "exception_type", "message", "meaning", "retries"),
    [
        (raise_no_ink, False, "NoInk", SENTENCE, "The pen is empty.", 0),
        (raise_frozen, False, "InkFrozen", SENTENCE, "The ink is frozen.", 2),
        (raise_mistake, False, "KeyError", "KeyError in failing: an error that no job foresees", "An error that no", 2),
        (raise_refusal, False, "IntegrityError", "The database refused a statement", "Wraps a DB-API", 0),
        (raise_past_the_conventions, True, "Failure", SENTENCE, "A job said that it failed.", 0),
        (raise_unset, True, "ConfigurationError", SENTENCE, "An error that no", 2),
    ],
)
def test_an_op_s_failure_is_told_in_its_own_sentence_however_often_it_was_tried(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[[], None],
    outside: bool,
    exception_type: str,
    message: str,
    meaning: str,
    retries: int,
) -> None:
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda _policy, _attempt: 0)

    @dg.op(retry_policy=RETRIES)
    def failing() -> None:
        if outside:
            trouble()
        with user_facing_failures():
            trouble()

    job = single_op_job(failing, Severity.MEDIUM, legacy_name="none")
    resolved = dg.Definitions(jobs=[job], resources={"io_manager": returned_values}).resolve_job_def("failing")
    run_id = resolved.execute_in_process(instance=instance, raise_on_error=False).run_id
    look(instance)
    kept = row(sessions, run_id)
    assert (kept.status, kept.retries) == ("ERROR", retries)
    assert kept.error is not None
    assert kept.error.startswith(message)
    error, told = _told(sessions)
    assert (error.severity, error.exception_type, error.message) == ("MEDIUM", exception_type, kept.error)
    assert error.context == {"run_id": run_id, "step": "failing", "retries": retries}
    assert error.traceback is not None
    assert "raise " in error.traceback
    assert told["exception"]["type"] == exception_type
    assert told["exception"]["message"].startswith(meaning)
    assert SECRET not in f"{error.message}{error.traceback}{error.context}{told}{kept.error}"


def test_after_the_last_try_dagster_too_shows_the_sentence_first(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda _policy, _attempt: 0)

    @dg.op(retry_policy=RETRIES)
    def failing() -> None:
        with user_facing_failures():
            raise_frozen()

    job = single_op_job(failing, Severity.LOW, legacy_name="none")
    ran = job.execute_in_process(instance=instance, raise_on_error=False)
    (failure,) = [event.step_failure_data for event in ran.all_events if event.is_step_failure]
    assert sum(event.is_step_up_for_retry for event in ran.all_events) == 2
    assert failure.error is not None
    assert failure.error.message.strip() == f"dagster._core.definitions.events.Failure: {SENTENCE}"


def be_silent_for_too_long(sessions: sessionmaker[Session]) -> None:
    with user_facing_failures(), sessions() as session:
        session.execute(text("set idle_in_transaction_session_timeout = '10ms'"))
        server = session.connection().connection.driver_connection
        assert server is not None
        wait_until(lambda: select_ready([server.fileno()], [], [], 0)[0], what="the server's word that it hung up")
        session.execute(text("select 1"))


def test_a_transaction_that_the_database_ended_for_its_silence_is_tried_again(sessions: sessionmaker[Session]) -> None:
    with pytest.raises(dg.Failure, match="silent for too long") as raised:
        be_silent_for_too_long(sessions)
    assert raised.value.allow_retries


def launch_error(error: Exception) -> EngineEventData:
    try:
        raise error
    except type(error):
        return EngineEventData.engine_error(serializable_error_info_from_exc_info(sys.exc_info()))


def lost(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_run_failed(run, f"Detected run worker status FAILED: gone. Marking run {run.run_id} as failed.")


def too_long(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_run_failed(run, "Exceeded maximum runtime of 900 seconds.")


def start_timeout(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    data = JobFailureData(error=None, failure_reason=RunFailureReason.START_TIMEOUT)
    instance.report_run_failed(run, "Run timed out due to taking longer than 180 seconds to start.", data)


def told_to_end(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    data = JobFailureData(error=None, failure_reason=RunFailureReason.UNEXPECTED_TERMINATION)
    event = DagsterEvent(
        DagsterEventType.PIPELINE_FAILURE.value, run.job_name, message="interrupted", event_specific_data=data
    )
    instance.report_dagster_event(event, run_id=run.run_id)


def not_launched(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_engine_event("Caught an error", run, launch_error(ConnectionError(SECRET)))
    instance.report_run_failed(run)


def not_launched_by_ours(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_engine_event("Caught an error", run, launch_error(ConfigurationError(SENTENCE)))
    instance.report_run_failed(run)


def from_outside(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_run_failed(run)


def without_a_word(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    becomes(instance, run.run_id, STATUS.FAILURE)


@pytest.mark.parametrize(
    ("end", "exception_type", "message"),
    [
        (lost, "RunProcessDied", "The run's process died or was killed before it could finish."),
        (too_long, "RunTookTooLong", "The run took longer than its job may take"),
        (start_timeout, "RunNeverStarted", "The run left the queue and never started"),
        (told_to_end, "RunProcessEnded", "The run's process was told to end"),
        (not_launched, "RunNotLaunched", "The run could not be started when it left the queue"),
        (not_launched_by_ours, "ConfigurationError", SENTENCE),
        (from_outside, "MarkedAsFailed", "The run was marked as failed from outside"),
        (without_a_word, "MarkedAsFailed", "The run was marked as failed from outside"),
    ],
)
def test_a_run_that_failed_as_a_whole_is_told_of_in_a_sentence(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    end: Callable[[dg.DagsterInstance, dg.DagsterRun], None],
    exception_type: str,
    message: str,
) -> None:
    run_id = new_run(instance, job_name="off_site_tracking")
    becomes(instance, run_id, STATUS.STARTED)
    run = instance.get_run_by_id(run_id)
    assert run is not None
    end(instance, run)
    look(instance)
    kept = row(sessions, run_id)
    assert kept.status == "ERROR"
    assert kept.error is not None
    assert kept.error.startswith(message)
    error, told = _told(sessions)
    # The run bears no tag of its severity: its job's counts.
    assert (error.exception_type, error.message, error.severity) == (exception_type, kept.error, "LOW")
    assert SECRET not in f"{error.message}{error.traceback}{told}"


def _told(sessions: sessionmaker[Session]) -> tuple[ErrorRecord, dict[str, Any]]:
    """The one errors row, and what PostHog is told of the exception."""
    with sessions() as session:
        error = session.scalars(select(ErrorRecord)).one()
        bodies = session.scalars(select(OutgoingEvent.body)).all()
    (told,) = [body for body in bodies if "exception" in body]
    return error, told
