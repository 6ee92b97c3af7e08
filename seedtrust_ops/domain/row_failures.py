"""Writes many rows in one database transaction, or each on its own if one of them makes that one fail.

A row fails if another application holds it locked, or if a constraint, a trigger or its own values refuse the change.
A lost connection or lease is no row's failure. See docs/decisions/one-row-fails-alone.md.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from psycopg.errors import Error, LockNotAvailable
from sqlalchemy import func, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction

Result = TypeVar("Result")

LOCKED = "another application holds one of its rows locked"
ROW_LOCK_SECONDS = 0.5
"""How long one transfer waits for a locked row. Waits must not add up: the bank may have answered about 100 others."""

# PostgreSQL documentation, appendix A: triggered action, cardinality, data and integrity errors, trigger conflicts,
# external routines, check options, program limits (an index cannot hold the value), and what PL/pgSQL raises.
_ROW_CLASSES = ("09", "21", "22", "23", "27", "38", "39", "44", "54", "P0")
# Lock and statement timeouts, deadlocks that remain after retries, guards of tables, and damaged rows.
_ROW_SQLSTATES = ("55P03", "57014", "40001", "40P01", "42501", "XX001", "XX002")


# That of a lock, a timeout and a deadlock may be over at the next try.
_PASSING_SQLSTATES = ("55P03", "57014", "40001", "40P01")

_ROW_ERRORS = (DBAPIError, ValueError, ArithmeticError)


def is_row_failure(error: Exception) -> bool:
    """Return whether another row than the one that failed could still be written."""
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return False
        sqlstate = _sqlstate(error)
        if sqlstate is None:
            # The driver refused a value, such as text with a NUL.
            return isinstance(error, DataError | IntegrityError)
        return sqlstate.startswith(_ROW_CLASSES) or sqlstate in _ROW_SQLSTATES
    return isinstance(error, _ROW_ERRORS)


@dataclass(frozen=True)
class RowFailure:
    """Why a row could not be written, as a clause without any value of it; `may_pass` if the next try may succeed."""

    problem: str
    may_pass: bool

    @classmethod
    def of(cls, error: Exception) -> Self:
        """Return the failure for an error for which `is_row_failure` holds."""
        return cls(_describe(error), _sqlstate(error) in _PASSING_SQLSTATES)


def _describe(error: Exception) -> str:
    diagnosis = error.orig.diag if isinstance(error, DBAPIError) and isinstance(error.orig, Error) else None
    sqlstate = _sqlstate(error)
    if sqlstate is None or diagnosis is None:
        return f"it has a value that cannot be stored ({type(error).__name__})"
    if is_lock_timeout(error):
        return LOCKED
    if sqlstate.startswith("23") and diagnosis.constraint_name:
        return f"constraint {diagnosis.constraint_name} of table {diagnosis.table_name} refuses it"
    function = re.search(r"function (\S+?)\(", diagnosis.context or "")
    if function is not None:
        return f"the database function {function[1]} refuses it ({sqlstate}); the database log has its message"
    return f"the database refuses it ({sqlstate})"


def _sqlstate(error: Exception) -> str | None:
    sqlstate: str | None = getattr(getattr(error, "orig", None), "sqlstate", None)
    return sqlstate


def is_lock_timeout(error: Exception) -> bool:
    """Return whether the database refused to wait longer for a locked row."""
    return isinstance(error, DBAPIError) and isinstance(error.orig, LockNotAvailable)


def limit_lock_waits(session: Session) -> None:
    """Let the rest of the transaction wait for a locked row for ROW_LOCK_SECONDS only."""
    session.execute(select(func.set_config("lock_timeout", f"{ROW_LOCK_SECONDS * 1000:.0f}ms", True)))


def write_separately(
    session: Session, ids: Sequence[int], work: Callable[[Sequence[int]], Result], failures: dict[int, RowFailure]
) -> list[Result]:
    """Run `work` for rows with these ids behind savepoints, for half of them if one fails, down to single rows.

    It is for work whose rows belong to one decision, so that all that succeeds is committed together.

    Args:
        session: in a transaction in which `limit_lock_waits` was called.
        ids: the rows; they may be many.
        work: writes some of them.
        failures: gets why a row could not be written, by its id.
    """
    if not ids:
        return []
    try:
        with session.begin_nested():
            return [work(ids)]
    except _ROW_ERRORS as error:
        if not is_row_failure(error):
            raise
        if len(ids) == 1:
            failures[ids[0]] = RowFailure.of(error)
            return []
    middle = len(ids) // 2
    return [
        *write_separately(session, ids[:middle], work, failures),
        *write_separately(session, ids[middle:], work, failures),
    ]


class RowByRow:
    """Writes what belongs to transactions: all together if possible, else for each on its own.

    One instance is shared by all that a run records: once it has waited for a locked row as long as the session allows,
    it waits for a short time only. `failures` has why nothing was written for a transaction, by its id.
    """

    def __init__(self, sessions: Sessions, fence: Callable[[Session], None]) -> None:
        """Create it; `fence` locks what concerns all rows, such as the lease, before any row is written on its own."""
        self.failures: dict[int, RowFailure] = {}
        self.fence = fence
        self._sessions = sessions
        self._has_waited = False

    def write(self, transaction_ids: Sequence[int], work: Callable[[Session, Sequence[int]], Result]) -> list[Result]:
        """Run `work` for all transactions, or for each of them; return the results of what was committed.

        `work` starts with the fence itself, and is run again from its start after a failure. Raises what is no row's
        failure.
        """
        try:
            together = run_in_transaction(self._sessions, lambda session: self._write(session, transaction_ids, work))
        except _ROW_ERRORS as error:
            if not is_row_failure(error):
                raise
            self._has_waited |= is_lock_timeout(error)
        else:
            self._forget_failures(transaction_ids)
            return [together]
        return [result for one in transaction_ids for result in self._write_alone(one, work)]

    def _write(
        self, session: Session, transaction_ids: Sequence[int], work: Callable[[Session, Sequence[int]], Result]
    ) -> Result:
        if self._has_waited:
            limit_lock_waits(session)
        return work(session, transaction_ids)

    def _write_alone(self, transaction_id: int, work: Callable[[Session, Sequence[int]], Result]) -> list[Result]:
        is_fenced = False

        def write(session: Session) -> Result:
            nonlocal is_fenced
            is_fenced = False
            limit_lock_waits(session)
            self.fence(session)
            is_fenced = True
            return work(session, [transaction_id])

        try:
            result = run_in_transaction(self._sessions, write)
        except _ROW_ERRORS as error:
            if not is_fenced or not is_row_failure(error):
                raise
            self.failures[transaction_id] = RowFailure.of(error)
            return []
        self._forget_failures([transaction_id])
        return [result]

    def _forget_failures(self, transaction_ids: Sequence[int]) -> None:
        for one in transaction_ids:
            self.failures.pop(one, None)
