"""Sessions for a rehearsal: the job's own code works on them as on any others, and nothing of it is ever kept.

Each session is one database transaction. What the code takes for a commit is the moment at which the decisions are
read out of it; then it is rolled back, locks and all.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Engine, event, func, literal_column
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.db_transaction import Sessions
from seedtrust_ops.domain.shadow_mode.decisions import Decision
from seedtrust_ops.errors import TransientError
from seedtrust_ops.tables import OpsTable, PlatformTable

LOCK_WAIT = "250ms"
"""The longest that a rehearsal waits for rows that the legacy system holds. PostgreSQL looks for deadlocks after a
second: by then a rehearsal has given way, so that it is never the legacy's statement that is broken off."""
_LOCK_NOT_AVAILABLE = "55P03"

Result = TypeVar("Result")
Prepare = Callable[[Session], None]
Read = Callable[[Session], Iterable[Decision]]


class RowsInUse(TransientError):
    """A rehearsal gave way to somebody who was working on the same rows."""


@dataclass
class Rehearsal:
    """One job's rehearsal.

    Args:
        live: sessions on the application's database.
        prepare: what every transaction begins with, such as undoing what the legacy system did a moment ago.
        read: reads the decisions out of a transaction that the job would now commit.
    """

    live: Sessions
    prepare: Prepare = lambda _session: None
    read: Read = lambda _session: ()
    decisions: list[Decision] = field(default_factory=list)

    @property
    def sessions(self) -> Sessions:
        """The sessions to give to the job's code."""
        return sessionmaker(class_=_RehearsalSession, expire_on_commit=False, rehearsal=self)

    def run(self, work: Callable[[Sessions], Result]) -> Result:
        """Let `work` do what it does when the job is live, and return what it returns.

        Raises:
            RowsInUse: when the legacy system held rows that it needs.
        """
        try:
            return work(self.sessions)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
            raise RowsInUse(
                "Somebody, most likely the legacy system, was working on the rows that this look in shadow needs. It "
                "gave way and changed nothing; the next look decides about them."
            ) from None


def written_here(table: type[PlatformTable] | type[OpsTable]) -> ColumnElement[bool]:
    """Return the condition that a row of `table` was written by this very transaction, and by nobody else."""
    xmin: ColumnElement[Any] = literal_column(f"{table.metadata.schema}.{table.__tablename__}.xmin")
    return xmin == func.xid(func.pg_current_xact_id())


class _RehearsalSession(Session):
    """A session over one transaction that ends with a rollback, whatever its user calls it."""

    def __init__(self, *, rehearsal: Rehearsal, **options: Any) -> None:
        engine = rehearsal.live.kw["bind"]
        assert isinstance(engine, Engine), "rehearsals need the engine, to have a connection of their own"
        self._own: Connection = engine.connect()
        options |= {"bind": self._own, "join_transaction_mode": "rollback_only"}
        try:
            self._own.begin()
            self._own.exec_driver_sql(f"set local lock_timeout = '{LOCK_WAIT}'")
            # In a session of its own: the job's must not have begun yet.
            with Session(**options) as preparing:
                rehearsal.prepare(preparing)
        except BaseException:
            self._own.close()
            raise
        super().__init__(**options)
        self._rehearsal = rehearsal
        event.listen(self, "before_commit", _read_decisions)

    def connection(self, bind_arguments: Any = None, execution_options: Any = None) -> Connection:
        """Return the connection; an isolation level is set in words, for the transaction has begun already."""
        remaining = dict(execution_options or {})
        isolation_level = remaining.pop("isolation_level", None)
        if isolation_level is not None:
            self._own.exec_driver_sql(f"set transaction isolation level {isolation_level}")
        return super().connection(bind_arguments, remaining or None)

    def close(self) -> None:
        """End the transaction; nothing of it is kept."""
        super().close()
        self._own.close()


def _read_decisions(session: Session) -> None:
    assert isinstance(session, _RehearsalSession)
    session.flush()
    rehearsal = session._rehearsal
    rehearsal.decisions += rehearsal.read(session)
