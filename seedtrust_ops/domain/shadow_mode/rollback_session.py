"""Sessions for a dry run: the job's own code uses them like any others, and nothing is ever committed.

Each session is one database transaction. When the code commits, the decisions are read and everything is rolled back,
locks included.
See docs/decisions/shadow-mode.md.
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

LOCK_TIMEOUT = "250ms"
"""How long a dry run waits for rows that the legacy system has locked. PostgreSQL checks for deadlocks after a second;
the dry run stops waiting earlier, so the legacy system's statement is never the one that PostgreSQL cancels."""
_LOCK_NOT_AVAILABLE = "55P03"

Result = TypeVar("Result")
Prepare = Callable[[Session], None]
Read = Callable[[Session], Iterable[Decision]]


class RowsInUse(TransientError):
    """A dry run stopped because another transaction has locked the same rows."""


@dataclass
class DryRun:
    """One dry run of a job.

    Args:
        live: sessions on the application database.
        prepare: runs at the start of every transaction, for example to undo recent changes of the legacy system.
        read: reads the decisions from a transaction that the job would now commit.
    """

    live: Sessions
    prepare: Prepare = lambda _session: None
    read: Read = lambda _session: ()
    decisions: list[Decision] = field(default_factory=list)

    @property
    def sessions(self) -> Sessions:
        """The sessions to pass to the job's code."""
        return sessionmaker(class_=_RollbackSession, expire_on_commit=False, dry_run=self)

    def run(self, work: Callable[[Sessions], Result]) -> Result:
        """Run `work` as it runs when the job is live, and return its result.

        Raises:
            RowsInUse: the legacy system has locked rows that it needs.
        """
        try:
            return work(self.sessions)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
            raise RowsInUse(
                "Another transaction, most likely the legacy system's, has locked the rows that this shadow evaluation "
                "needs. Nothing was changed; the next evaluation decides about them."
            ) from None


def written_in_this_transaction(table: type[PlatformTable] | type[OpsTable]) -> ColumnElement[bool]:
    """Return the condition that a row of `table` was written by the current transaction."""
    xmin: ColumnElement[Any] = literal_column(f"{table.metadata.schema}.{table.__tablename__}.xmin")
    return xmin == func.xid(func.pg_current_xact_id())


class _RollbackSession(Session):
    """A session over one transaction that always ends with a rollback, even if its user commits."""

    def __init__(self, *, dry_run: DryRun, **options: Any) -> None:
        engine = dry_run.live.kw["bind"]
        assert isinstance(engine, Engine), "a dry run needs the engine, to open its own connection"
        self._own: Connection = engine.connect()
        options |= {"bind": self._own, "join_transaction_mode": "rollback_only"}
        try:
            self._own.begin()
            self._own.exec_driver_sql(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
            # The guards of the jobs' role refuse what `prepare` undoes; nothing that they would find is committed.
            self._own.exec_driver_sql("set constraints all deferred")
            # In a separate session: the job's own session must not have begun yet.
            with Session(**options) as preparing:
                dry_run.prepare(preparing)
        except BaseException:
            self._own.close()
            raise
        super().__init__(**options)
        self._dry_run = dry_run
        event.listen(self, "before_commit", _read_decisions)

    def connection(self, bind_arguments: Any = None, execution_options: Any = None) -> Connection:
        """Return the connection. The isolation level is set by SQL, because the transaction has already begun."""
        remaining = dict(execution_options or {})
        isolation_level = remaining.pop("isolation_level", None)
        if isolation_level is not None:
            self._own.exec_driver_sql(f"set transaction isolation level {isolation_level}")
        return super().connection(bind_arguments, remaining or None)

    def close(self) -> None:
        """Roll the transaction back and close the connection."""
        super().close()
        self._own.close()


def _read_decisions(session: Session) -> None:
    assert isinstance(session, _RollbackSession)
    session.flush()
    dry_run = session._dry_run
    dry_run.decisions += dry_run.read(session)
