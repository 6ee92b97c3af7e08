"""A failed run has one errors row and is told of once, however often and by however many it is recorded."""

from dataclasses import replace
from datetime import timedelta
from threading import Thread

from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.job_failures import RunFailure, record_failures, without_numbers
from seedtrust_ops.domain.job_runs import RunFact, mirror_runs
from seedtrust_ops.tables import ErrorRecord, JobRun, OutgoingEvent
from seedtrust_ops_tests.monitoring.sample_runs import MOMENT
from seedtrust_ops_tests.support.waiters import wait_until

FAILURE = RunFailure(
    run_id="run-1",
    task_name="some_job",
    severity="HIGH",
    exception_type="BankNotResponding",
    message="The bank gave no answer to transfer 20240301 of Jane Doe.",
    meaning="Request after request got no answer.",
    traceback='File "sending.py", line 12, in send',
    context={"run_id": "run-1", "retries": 2},
    occurred_at=MOMENT,
)


def fact(run_id: str, status: str = "ERROR") -> RunFact:
    return RunFact(run_id, "some_job", status, {}, 0, MOMENT, MOMENT, MOMENT + timedelta(minutes=1))


def record(session: Session, *run_ids: str) -> int:
    mirror_runs(session, [fact(run_id) for run_id in run_ids])
    return record_failures(session, [replace(FAILURE, run_id=run_id) for run_id in run_ids])


def errors(sessions: sessionmaker[Session]) -> list[ErrorRecord]:
    with sessions() as session:
        return list(session.scalars(select(ErrorRecord).order_by(ErrorRecord.id)))


def events(sessions: sessionmaker[Session]) -> dict[str, OutgoingEvent]:
    with sessions() as session:
        return {event.dedupe_key: event for event in session.scalars(select(OutgoingEvent))}


def test_the_row_has_the_sentence_and_what_leaves_the_house_has_not(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        assert record(session, "run-1") == 1
    (row,) = errors(sessions)
    with sessions() as session:
        assert row.job_run_id == session.scalars(select(JobRun.id)).one()
    assert (row.source, row.severity, row.exception_type) == ("some_job", "HIGH", "BankNotResponding")
    assert (row.message, row.traceback, row.context) == (FAILURE.message, FAILURE.traceback, FAILURE.context)
    assert row.occurred_at == MOMENT
    told = events(sessions)
    properties = {
        "task_name": "some_job",
        "run_id": "run-1",
        "severity": "HIGH",
        "exception_type": "BankNotResponding",
    }
    assert {event.destination for event in told.values()} == {"posthog"}
    assert told["job_run_error:run-1"].body == {"event": "job_run_error", "properties": properties}
    assert told["job_run_exception:run-1"].body == {
        "exception": {"type": "BankNotResponding", "message": FAILURE.meaning, "traceback": FAILURE.traceback},
        "properties": properties,
    }


def test_recording_again_writes_nothing_more(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        assert record(session, "run-1", "run-2") == 2
    with sessions.begin() as session:
        assert [record(session, "run-2", "run-3"), record(session, "run-3", "run-3")] == [1, 0]
    assert len(errors(sessions)) == 3
    assert len(events(sessions)) == 6


def test_a_run_that_job_run_does_not_have_as_failed_gets_no_row(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        mirror_runs(session, [fact("run-1", "COMPLETED")])
        assert record_failures(session, [FAILURE, replace(FAILURE, run_id="unknown")]) == 0
    assert errors(sessions) == []
    assert events(sessions) == {}


def test_of_two_that_record_at_once_the_second_waits_and_writes_nothing(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        mirror_runs(session, [fact("run-1")])
    written: list[int] = []

    def second() -> None:
        with sessions.begin() as session:
            written.append(record_failures(session, [FAILURE]))

    with sessions.begin() as first:
        assert record_failures(first, [FAILURE]) == 1
        thread = Thread(target=second)
        thread.start()
        wait_until(lambda: _waiting_for_locks(sessions) == 1, what="the second one to wait for the first")
    thread.join(30)
    assert written == [0]
    assert len(errors(sessions)) == 1


def _waiting_for_locks(sessions: sessionmaker[Session]) -> int:
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    with sessions() as session:
        count: int = session.scalars(text(waiting)).one()
    return count


def test_no_run_of_digits_that_could_be_an_account_leaves_the_house() -> None:
    assert without_numbers("account 000123456789, line 123") == "account ****, line 123"
