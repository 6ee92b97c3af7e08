"""A long poll returns as soon as work is committed, misses nothing, and polls if it cannot listen."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.database import listen_notify
from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops.database.listen_notify import BATCH_QUEUED, POLL_SECONDS, listen, notify_stop, poll_until
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.waiters import wait_until

TIMEOUT_SECONDS = 60.0
"""Much longer than any test takes, so that no test mistakes the end of a wait for a notification."""
LISTENERS = text(
    "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    " and query like '%pg_trigger%'"
)


@pytest.fixture
def engine(database_url: URL) -> Iterator[Engine]:
    engine = create_application_engine(database_url)
    yield engine
    engine.dispose()


def count_queued(sessions: sessionmaker[Session]) -> int:
    with sessions() as session:
        return int(session.scalar(text("select count(*) from huntington_batches where status = 'queued'")) or 0)


@contextmanager
def in_background(action: Callable[[], object]) -> Iterator[None]:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    yield
    thread.join()


class CountingCheck:
    """Counts the queued batches and its own calls, and signals its first call."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self.count = 0
        self.first_check = threading.Event()

    def __call__(self) -> int:
        found = count_queued(self._sessions)
        self.count += 1
        self.first_check.set()
        return found


def wait(engine: Engine, check: Callable[[], int], seconds: float = TIMEOUT_SECONDS) -> tuple[int, str | None]:
    with listen(engine, BATCH_QUEUED) as listener:
        return poll_until(check, bool, listener, seconds=seconds), listener.polling_reason


@pytest.mark.parametrize("change", ["inserted", "updated"])
def test_wait_ends_when_a_batch_is_queued(
    engine: Engine, sessions: sessionmaker[Session], company: Company, change: str
) -> None:
    draft = company.batch([100], status="draft")
    counter = CountingCheck(sessions)

    def queue() -> None:
        counter.first_check.wait(TIMEOUT_SECONDS)
        if change == "inserted":
            company.batch([100])
        else:
            execute(engine, f"update huntington_batches set status = 'queued' where id = {draft}")

    with in_background(queue):
        assert wait(engine, counter) == (1, None)
    assert counter.count == 2


def test_batch_queued_between_listen_and_first_check_is_found(
    engine: Engine, sessions: sessionmaker[Session], company: Company
) -> None:
    with listen(engine, BATCH_QUEUED) as listener:
        seen_before = count_queued(sessions)
        company.batch([100])
        outcomes = iter([seen_before])
        found = poll_until(
            lambda: next(outcomes, None) or count_queued(sessions), bool, listener, seconds=TIMEOUT_SECONDS
        )
    assert (seen_before, found) == (0, 1)


def test_irrelevant_change_does_not_end_the_wait(
    engine: Engine, sessions: sessionmaker[Session], company: Company
) -> None:
    counter = CountingCheck(sessions)
    with in_background(lambda: counter.first_check.wait(TIMEOUT_SECONDS) and company.batch([100], status="draft")):
        assert wait(engine, counter, seconds=0.5) == (0, None)
    assert counter.count == 1


def test_stop_notification_ends_the_wait_with_the_last_outcome(engine: Engine, sessions: sessionmaker[Session]) -> None:
    counter = CountingCheck(sessions)
    with in_background(lambda: counter.first_check.wait(TIMEOUT_SECONDS) and notify_stop(engine, BATCH_QUEUED)):
        assert wait(engine, counter) == (0, None)
    assert counter.count == 1


def drop_trigger(engine: Engine) -> None:
    execute(engine, f"drop trigger {BATCH_QUEUED.trigger} on huntington_batches")


def disable_trigger(engine: Engine) -> None:
    execute(engine, f"alter table huntington_batches disable trigger {BATCH_QUEUED.trigger}")


def refuse_listen(engine: Engine) -> None:
    """Reject LISTEN, as a standby and some poolers do."""

    @event.listens_for(engine, "do_execute")
    def refuse(_cursor: Any, statement: str, _parameters: Any, _context: Any) -> None:
        if statement.startswith("listen"):
            raise psycopg.errors.FeatureNotSupported("cannot execute LISTEN during recovery")


def simulate_pooler(engine: Engine) -> None:
    """Report a backend pid that is not the server's, as a pooler does."""

    @event.listens_for(engine, "do_execute")
    def renumber(cursor: Any, statement: str, parameters: Any, _context: Any) -> bool:
        cursor.execute(statement.replace("pg_backend_pid()", "pg_backend_pid() + 1"), parameters)
        return True


def refuse_connections(engine: Engine) -> None:
    """Refuse connections, as a server does when all of them are in use."""

    def refuse(**_: Any) -> None:
        raise psycopg.OperationalError("FATAL: sorry, too many clients already")

    engine.dialect.connect = refuse  # type: ignore[method-assign, assignment]


def execute(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)


@pytest.mark.parametrize(
    ("break_listening", "reason"),
    [
        (drop_trigger, "trigger seedtrust_ops_batch_queued is missing"),
        (disable_trigger, "trigger seedtrust_ops_batch_queued is missing"),
        (refuse_listen, "LISTEN was rejected"),
        (simulate_pooler, "a connection pooler is in front of the database"),
        (refuse_connections, "no connection was available"),
    ],
)
def test_wait_polls_if_it_cannot_listen(
    engine: Engine,
    sessions: sessionmaker[Session],
    company: Company,
    break_listening: Callable[[Engine], None],
    reason: str,
) -> None:
    break_listening(engine)
    counter = CountingCheck(sessions)
    with in_background(lambda: counter.first_check.wait(TIMEOUT_SECONDS) and company.batch([100])):
        found, polling_reason = wait(engine, counter)
    assert found == 1
    assert reason in str(polling_reason)


class Clock:
    """Advances only when a caller sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_polling_ends_with_the_wait(
    engine: Engine, sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_trigger(engine)
    counter, clock = CountingCheck(sessions), Clock()
    monkeypatch.setattr(listen_notify, "time", clock)
    assert wait(engine, counter, seconds=1.5 * POLL_SECONDS)[0] == 0
    assert (counter.count, clock.now) == (2, 1.5 * POLL_SECONDS)


def test_wait_polls_after_losing_its_connection(
    engine: Engine, sessions: sessionmaker[Session], company: Company
) -> None:
    counter = CountingCheck(sessions)

    def terminate_listener() -> None:
        counter.first_check.wait(TIMEOUT_SECONDS)
        with sessions() as session:
            wait_until(lambda: session.scalar(LISTENERS), what="the listener")
            session.execute(text(f"select pg_terminate_backend(({LISTENERS.text} limit 1), 60000)"))
        company.batch([100])

    with in_background(terminate_listener):
        found, polling_reason = wait(engine, counter)
    assert found == 1
    assert "was lost" in str(polling_reason)


def test_wait_leaves_no_connection(engine: Engine, sessions: sessionmaker[Session]) -> None:
    for _ in range(3):
        wait(engine, CountingCheck(sessions), seconds=0.01)

    def listeners() -> list[int]:
        # A transaction of its own: within one, PostgreSQL shows the same activity again.
        with sessions() as session:
            return list(session.scalars(LISTENERS))

    wait_until(lambda: not listeners(), what="the listening connections to close")


def test_notification_during_a_rest_is_handled_after_it(
    engine: Engine, sessions: sessionmaker[Session], company: Company
) -> None:
    counter = CountingCheck(sessions)
    with (
        in_background(lambda: counter.first_check.wait(TIMEOUT_SECONDS) and company.batch([100])),
        listen(engine, BATCH_QUEUED) as listener,
    ):
        assert poll_until(counter, bool, listener, seconds=TIMEOUT_SECONDS, cooldown_ratio=5) == 1
    assert counter.count == 2


def test_rest_longer_than_the_wait_ends_the_wait(engine: Engine, sessions: sessionmaker[Session]) -> None:
    counter = CountingCheck(sessions)
    with listen(engine, BATCH_QUEUED) as listener:
        assert poll_until(counter, bool, listener, seconds=TIMEOUT_SECONDS, cooldown_ratio=1e12) == 0
    assert counter.count == 1
