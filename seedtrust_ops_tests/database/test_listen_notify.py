"""Who waits in the database is woken by what is committed, misses nothing, and polls where it can't listen."""

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
from seedtrust_ops.database.listen_notify import BATCH_QUEUED, POLL_SECONDS, listening, stop_waiting, wait_until_found
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.waiters import wait_until

LONG = 60.0
"""So much longer than anything here takes that nobody can take the end of the wait for a signal."""
LISTENERS = text(
    "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    " and query like '%pg_trigger%'"
)


@pytest.fixture
def engine(database_url: URL) -> Iterator[Engine]:
    engine = create_application_engine(database_url)
    yield engine
    engine.dispose()


def queued(sessions: sessionmaker[Session]) -> int:
    with sessions() as session:
        return int(session.scalar(text("select count(*) from huntington_batches where status = 'queued'")) or 0)


@contextmanager
def meanwhile(do: Callable[[], object]) -> Iterator[None]:
    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    yield
    thread.join()


class Looks:
    """Counts the looks, and lets others act when one of them was made."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self.count = 0
        self.first = threading.Event()

    def __call__(self) -> int:
        found = queued(self._sessions)
        self.count += 1
        self.first.set()
        return found


def wait(engine: Engine, look: Callable[[], int], seconds: float = LONG) -> tuple[int, str | None]:
    with listening(engine, BATCH_QUEUED) as bell:
        return wait_until_found(look, bool, bell, seconds=seconds), bell.why_polling


@pytest.mark.parametrize("way", ["inserted", "updated"])
def test_batch_that_is_queued_while_somebody_waits_wakes_him(
    engine: Engine, sessions: sessionmaker[Session], company: Company, way: str
) -> None:
    draft = company.batch([100], status="draft")
    looks = Looks(sessions)

    def queue() -> None:
        looks.first.wait(LONG)
        if way == "inserted":
            company.batch([100])
        else:
            execute(engine, f"update huntington_batches set status = 'queued' where id = {draft}")

    with meanwhile(queue):
        assert wait(engine, looks) == (1, None)
    assert looks.count == 2


def test_batch_that_is_queued_between_the_listening_and_the_first_look_is_not_missed(
    engine: Engine, sessions: sessionmaker[Session], company: Company
) -> None:
    with listening(engine, BATCH_QUEUED) as bell:
        seen_before = queued(sessions)
        company.batch([100])
        outcomes = iter([seen_before])
        found = wait_until_found(lambda: next(outcomes, None) or queued(sessions), bool, bell, seconds=LONG)
    assert (seen_before, found) == (0, 1)


def test_what_is_of_no_interest_wakes_nobody(engine: Engine, sessions: sessionmaker[Session], company: Company) -> None:
    looks = Looks(sessions)
    with meanwhile(lambda: looks.first.wait(LONG) and company.batch([100], status="draft")):
        assert wait(engine, looks, seconds=0.5) == (0, None)
    assert looks.count == 1


def test_who_is_asked_to_stop_returns_with_what_he_saw(engine: Engine, sessions: sessionmaker[Session]) -> None:
    looks = Looks(sessions)
    with meanwhile(lambda: looks.first.wait(LONG) and stop_waiting(engine, BATCH_QUEUED)):
        assert wait(engine, looks) == (0, None)
    assert looks.count == 1


def drop_trigger(engine: Engine) -> None:
    execute(engine, f"drop trigger {BATCH_QUEUED.trigger} on huntington_batches")


def disable_trigger(engine: Engine) -> None:
    execute(engine, f"alter table huntington_batches disable trigger {BATCH_QUEUED.trigger}")


def refuse_listen(engine: Engine) -> None:
    """As a standby does, and some poolers."""

    @event.listens_for(engine, "do_execute")
    def refuse(_cursor: Any, statement: str, _parameters: Any, _context: Any) -> None:
        if statement.startswith("listen"):
            raise psycopg.errors.FeatureNotSupported("cannot execute LISTEN during recovery")


def stand_between(engine: Engine) -> None:
    """As a pooler does: the client is told a process number that is not the server's."""

    @event.listens_for(engine, "do_execute")
    def renumber(cursor: Any, statement: str, parameters: Any, _context: Any) -> bool:
        cursor.execute(statement.replace("pg_backend_pid()", "pg_backend_pid() + 1"), parameters)
        return True


def refuse_connections(engine: Engine) -> None:
    """As a server does whose connections are all taken."""

    @event.listens_for(engine, "do_connect")
    def refuse(*_: Any) -> None:
        raise psycopg.OperationalError("FATAL: sorry, too many clients already")


def execute(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        (drop_trigger, "trigger seedtrust_ops_batch_queued is missing"),
        (disable_trigger, "trigger seedtrust_ops_batch_queued is missing"),
        (refuse_listen, "LISTEN was refused"),
        (stand_between, "a connection pooler stands before the database"),
        (refuse_connections, "no connection is to be had"),
    ],
)
def test_where_nothing_can_be_heard_it_looks_every_second(
    engine: Engine, sessions: sessionmaker[Session], company: Company, trouble: Callable[[Engine], None], why: str
) -> None:
    trouble(engine)
    looks = Looks(sessions)
    with meanwhile(lambda: looks.first.wait(LONG) and company.batch([100])):
        found, why_polling = wait(engine, looks)
    assert found == 1
    assert why in str(why_polling)


class Clock:
    """Stands still but for those who sleep by it."""

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
    looks, clock = Looks(sessions), Clock()
    monkeypatch.setattr(listen_notify, "time", clock)
    assert wait(engine, looks, seconds=1.5 * POLL_SECONDS)[0] == 0
    assert (looks.count, clock.now) == (2, 1.5 * POLL_SECONDS)


def test_who_loses_his_connection_goes_on_by_looking(
    engine: Engine, sessions: sessionmaker[Session], company: Company
) -> None:
    looks = Looks(sessions)

    def cut() -> None:
        looks.first.wait(LONG)
        with sessions() as session:
            wait_until(lambda: session.scalar(LISTENERS), what="the listener")
            session.execute(text(f"select pg_terminate_backend(({LISTENERS.text} limit 1), 60000)"))
        company.batch([100])

    with meanwhile(cut):
        found, why_polling = wait(engine, looks)
    assert found == 1
    assert "was lost" in str(why_polling)


def test_nothing_is_left_of_a_wait(engine: Engine, sessions: sessionmaker[Session]) -> None:
    for _ in range(3):
        wait(engine, Looks(sessions), seconds=0.01)
    with sessions() as session:
        wait_until(lambda: not session.scalars(LISTENERS).all(), what="the end of the listening connections")


def test_a_signal_during_the_rest_after_a_look_is_answered_when_the_rest_is_over(
    engine: Engine, sessions: sessionmaker[Session], company: Company
) -> None:
    looks = Looks(sessions)
    with meanwhile(lambda: looks.first.wait(LONG) and company.batch([100])), listening(engine, BATCH_QUEUED) as bell:
        assert wait_until_found(looks, bool, bell, seconds=LONG, rest=5) == 1
    assert looks.count == 2


def test_a_rest_that_outlasts_the_wait_ends_it(engine: Engine, sessions: sessionmaker[Session]) -> None:
    looks = Looks(sessions)
    with listening(engine, BATCH_QUEUED) as bell:
        assert wait_until_found(looks, bool, bell, seconds=LONG, rest=1e12) == 0
    assert looks.count == 1
