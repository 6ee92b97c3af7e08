"""A failed run gets one `errors` row and one set of events, however often and concurrently it is recorded."""

from dataclasses import replace
from datetime import timedelta
from threading import Thread

from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.job_failures import RunFailure, mask_long_numbers, record_failures
from seedtrust_ops.domain.job_runs import RunSnapshot, mirror_runs
from seedtrust_ops.tables import ErrorRecord, JobRun, OutgoingEvent
from seedtrust_ops_tests.monitoring.sample_runs import BASE_TIME
from seedtrust_ops_tests.support.waiters import wait_until

FAILURE = RunFailure(
    run_id="run-1",
    task_name="some_job",
    severity="HIGH",
    exception_type="BankNotResponding",
    message="The bank did not respond to transfer 20240301 of Jane Doe.",
    meaning="Several requests in a row got no response.",
    traceback='File "sender.py", line 12, in send',
    context={"run_id": "run-1", "retries": 2},
    occurred_at=BASE_TIME,
)


def snapshot(run_id: str, status: str = "ERROR") -> RunSnapshot:
    return RunSnapshot(run_id, "some_job", status, {}, 0, BASE_TIME, BASE_TIME, BASE_TIME + timedelta(minutes=1))


def record(session: Session, *run_ids: str) -> int:
    mirror_runs(session, [snapshot(run_id) for run_id in run_ids])
    return record_failures(session, [replace(FAILURE, run_id=run_id) for run_id in run_ids])


def errors(sessions: sessionmaker[Session]) -> list[ErrorRecord]:
    with sessions() as session:
        return list(session.scalars(select(ErrorRecord).order_by(ErrorRecord.id)))


def events(sessions: sessionmaker[Session]) -> dict[str, OutgoingEvent]:
    with sessions() as session:
        return {event.dedupe_key: event for event in session.scalars(select(OutgoingEvent))}


def test_message_is_in_the_row_but_not_in_the_events(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        assert record(session, "run-1") == 1
    (row,) = errors(sessions)
    with sessions() as session:
        assert row.job_run_id == session.scalars(select(JobRun.id)).one()
    assert (row.source, row.severity, row.exception_type) == ("some_job", "HIGH", "BankNotResponding")
    assert (row.message, row.traceback, row.context) == (FAILURE.message, FAILURE.traceback, FAILURE.context)
    assert row.occurred_at == BASE_TIME
    queued = events(sessions)
    properties = {
        "task_name": "some_job",
        "run_id": "run-1",
        "severity": "HIGH",
        "exception_type": "BankNotResponding",
    }
    assert {event.destination for event in queued.values()} == {"posthog"}
    assert queued["job_run_error:run-1"].body == {"event": "job_run_error", "properties": properties}
    assert queued["job_run_exception:run-1"].body == {
        "exception": {"type": "BankNotResponding", "message": FAILURE.meaning, "traceback": FAILURE.traceback},
        "properties": properties,
    }


def test_failure_recorded_again_writes_nothing(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        assert record(session, "run-1", "run-2") == 2
    with sessions.begin() as session:
        assert [record(session, "run-2", "run-3"), record(session, "run-3", "run-3")] == [1, 0]
    assert len(errors(sessions)) == 3
    assert len(events(sessions)) == 6


def test_run_not_failed_in_job_run_gets_no_row(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        mirror_runs(session, [snapshot("run-1", "COMPLETED")])
        assert record_failures(session, [FAILURE, replace(FAILURE, run_id="unknown")]) == 0
    assert errors(sessions) == []
    assert events(sessions) == {}


def test_concurrent_recorder_waits_and_writes_nothing(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        mirror_runs(session, [snapshot("run-1")])
    written: list[int] = []

    def second() -> None:
        with sessions.begin() as session:
            written.append(record_failures(session, [FAILURE]))

    with sessions.begin() as first:
        assert record_failures(first, [FAILURE]) == 1
        thread = Thread(target=second)
        thread.start()
        wait_until(lambda: _count_lock_waits(sessions) == 1, what="the second recorder to wait for the first")
    thread.join(30)
    assert written == [0]
    assert len(errors(sessions)) == 1


def _count_lock_waits(sessions: sessionmaker[Session]) -> int:
    query = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    with sessions() as session:
        count: int = session.scalars(text(query)).one()
    return count


def test_long_numbers_are_masked_in_events() -> None:
    assert mask_long_numbers("account 000123456789, line 123") == "account ****, line 123"
