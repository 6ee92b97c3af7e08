"""Locks of `ops.locks`: each name has its row, one transaction at a time holds it, and no login without grants can."""

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.orm import Session, sessionmaker

import seedtrust_ops
from seedtrust_ops.domain.approvals.by_date import approve_due
from seedtrust_ops.domain.balances.snapshot import write_balance_snapshot
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.locks import Lock, hold_lock
from seedtrust_ops.domain.reminders.balances import find_balance_reminders
from seedtrust_ops.domain.transfers.failure_notices import notify_of_failures
from seedtrust_ops.domain.transfers.unreadable_transfers import record_unreadable
from seedtrust_ops.migrations.migrator import migrate
from seedtrust_ops.ports.bank import UnreadableTransfer

PACKAGE = Path(seedtrust_ops.__file__).parent
NAMELESS = UnreadableTransfer(None, None, None, "It is not an object.")
HOLDERS: dict[Lock, Callable[[sessionmaker[Session], Path], object]] = {
    Lock.APPROVALS: lambda sessions, _folder: approve_due(sessions()),
    Lock.BALANCE_REMINDERS: lambda sessions, _folder: find_balance_reminders(sessions(), date(2026, 3, 3)),
    Lock.TRANSFER_FAILURES: lambda sessions, _folder: notify_of_failures(sessions(), ()),
    Lock.BALANCE_SNAPSHOT: lambda sessions, folder: write_balance_snapshot(sessions, folder / "balances.parquet"),
    # Its holder needs a bank, and a worker that has claimed a batch: domain/transfers/test_funding.py.
    Lock.FUNDING: lambda sessions, _folder: hold_lock(sessions(), Lock.FUNDING),
    Lock.UNREADABLE_TRANSFERS: lambda sessions, _folder: run_in_transaction(
        sessions, lambda session: record_unreadable(session, [NAMELESS])
    ),
}


@pytest.fixture
def impatient(database_url: URL) -> Iterator[Engine]:
    """An engine whose sessions wait half a second for a lock."""
    engine = create_engine(database_url, connect_args={"options": "-c lock_timeout=500ms"})
    yield engine
    engine.dispose()


def test_advisory_locks_are_taken_only_before_there_are_tables() -> None:
    modules = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.*")
        if path.suffix in (".py", ".sql") and "pg_advisory" in path.read_text()
    }
    # The first of them locks in the server's database `postgres`, so their numbers never meet.
    assert modules == {"database/embedded_postgres.py", "migrations/migrator.py"}
    assert len(set(Lock)) == len(Lock.__members__)


@pytest.mark.parametrize("lock", Lock)
def test_lock_is_held_by_one_transaction_at_a_time(
    lock: Lock, sessions: sessionmaker[Session], impatient: Engine, tmp_path: Path
) -> None:
    work = HOLDERS[lock]
    with sessions() as holder:
        hold_lock(holder, lock)
        with pytest.raises(OperationalError, match="lock timeout"):
            work(sessionmaker(impatient), tmp_path)
    work(sessionmaker(impatient), tmp_path)


def test_login_without_grants_holds_up_nothing(database_url: URL, impatient: Engine, tmp_path: Path) -> None:
    with impatient.begin() as superuser:
        superuser.execute(
            text(
                "do $$ begin if not exists (select from pg_roles where rolname = 'seedtrust_test_nobody')"
                " then create role seedtrust_test_nobody login; end if; end $$"
            )
        )
    other_login = create_engine(database_url.set(username="seedtrust_test_nobody"))
    with other_login.connect() as connection:
        # The numbers of the advisory locks by which our runs once took turns.
        connection.execute(text("select pg_advisory_lock(number) from generate_series(7305401, 7305404) as number"))
        connection.commit()
        with pytest.raises(ProgrammingError, match="permission denied"):
            connection.execute(text("select name from ops.locks for update"))
        connection.rollback()
        for work in HOLDERS.values():
            work(sessionmaker(impatient), tmp_path)
        assert migrate(impatient)[0].startswith("Schema ops is up to date")
    other_login.dispose()
