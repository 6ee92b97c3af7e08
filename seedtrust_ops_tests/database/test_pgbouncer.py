"""The application database behind the real PgBouncer: guards stay in force, and clients do not mix their statements."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from seedtrust_ops.config import Settings
from seedtrust_ops.database.engine import create_application_engine, open_application_engine
from seedtrust_ops.database.listen_notify import BATCH_QUEUED, listen
from seedtrust_ops.database.session_guards import GUARDS, READ_GUARDS, require_guards
from seedtrust_ops.errors import ConfigurationError, DatabaseUnreachable
from seedtrust_ops_tests.support.databases import plain_url
from seedtrust_ops_tests.support.pgbouncer import pgbouncer
from seedtrust_ops_tests.support.waiters import wait_until

pytestmark = pytest.mark.usefixtures("child_processes")

IGNORED = "ignore_startup_parameters = options"


@pytest.fixture(params=[("session", ""), ("transaction", ""), ("transaction", IGNORED)], ids="-".join)
def pooled_url(request: pytest.FixtureRequest, database_url: URL) -> Iterator[URL]:
    mode, settings = request.param
    with pgbouncer(database_url, mode, sessions=8, settings=settings) as url:
        yield url


def test_guards_are_in_force_in_every_transaction(pooled_url: URL) -> None:
    engine = open_application_engine(Settings({"SEEDTRUST_DATABASE_URL": plain_url(pooled_url)}))
    for _ in range(3):
        with engine.begin() as connection:
            assert tuple(connection.execute(text(READ_GUARDS)).one()) == tuple(GUARDS.values())
    engine.dispose()


def test_frozen_transaction_is_ended_and_frees_its_locks(
    pooled_url: URL, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GUARDS, "idle_in_transaction_session_timeout", 1)
    engine, direct = create_application_engine(pooled_url), create_engine(database_url)
    with engine.connect() as frozen:
        frozen.execute(text("select pg_advisory_xact_lock(7)"))

        def is_free() -> bool:
            with direct.begin() as other:
                return bool(other.scalar(text("select pg_try_advisory_xact_lock(7)")))

        assert not is_free()
        wait_until(is_free, what="the frozen transaction's end")
        with pytest.raises(DBAPIError):
            frozen.execute(text("select 1"))
        frozen.invalidate()
    engine.dispose()
    direct.dispose()


def test_concurrent_clients_get_the_answers_to_their_own_statements(database_url: URL) -> None:
    # Fewer sessions than clients, and statements repeated until a driver would prepare them.
    with pgbouncer(database_url, "transaction", sessions=2) as url:

        def ask(client: int) -> list[int]:
            engine = create_application_engine(url)
            found = []
            for number in range(60):
                with engine.begin() as connection:
                    statement = text(f"select cast(:number as int) * 1000 + {client}")
                    found.append(int(connection.scalar(statement, {"number": number}) or -1))
            engine.dispose()
            return found

        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(ask, range(1, 5)))
    assert answers == [[number * 1000 + client for number in range(60)] for client in range(1, 5)]


def test_listening_falls_back_to_polling(pooled_url: URL) -> None:
    engine = create_application_engine(pooled_url)
    with listen(engine, BATCH_QUEUED) as listener:
        assert listener.polling_reason == "a connection pooler is in front of the database"
    engine.dispose()


def test_guards_that_are_not_in_force_are_refused(database_url: URL) -> None:
    engine = create_application_engine(database_url)
    with engine.connect() as connection:
        require_guards(connection)
        connection.execute(text("set local lock_timeout = 0"))
        with pytest.raises(ConfigurationError, match=r"lock_timeout is 0 s\. A frozen worker could hold its locks"):
            require_guards(connection)
    engine.dispose()


def test_pooler_without_transactions_is_refused_at_the_start(database_url: URL) -> None:
    with (
        pgbouncer(database_url, "statement", sessions=2, settings=IGNORED) as url,
        pytest.raises(DatabaseUnreachable, match="not allowed in statement pooling mode"),
    ):
        open_application_engine(Settings({"SEEDTRUST_DATABASE_URL": plain_url(url)}))
