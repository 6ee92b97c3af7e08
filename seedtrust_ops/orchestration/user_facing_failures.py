"""Turns an error in a job into a Dagster failure that people can read: what failed, which record, what to do.

It also holds the retry policy of every op, because a failure on the last attempt must not ask for another retry.
See docs/decisions/failure-messages.md.
"""

import inspect
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from sqlalchemy.exc import DBAPIError

from seedtrust_ops.database.engine import application_url, is_connection_lost, unreachable_error
from seedtrust_ops.domain.row_failures import is_lock_timeout
from seedtrust_ops.errors import InputError, RowLocked, SeedTrustError

RETRIES = dg.RetryPolicy(max_retries=2, delay=2, backoff=dg.Backoff.EXPONENTIAL)
"""docs/rules.md, section 1: two retries, exponential from 2 seconds (Dagster waits 2, then 6)."""
UNDEFINED_TABLE = "42P01"
UNDEFINED_COLUMN = "42703"
RAISE_EXCEPTION = "P0001"
IDLE_IN_TRANSACTION_TIMEOUT = "25P03"
MAX_FRAMES = 30
ERROR_TYPE, ERROR_MEANING, TRACEBACK = "Error type", "What it means", "Traceback"
INPUT_ERROR = "Input error"
"""Labels of a failure's metadata; `monitoring/failure_summary` reads the failure by them."""


@contextmanager
def user_facing_failures() -> Iterator[None]:
    """Turn an error into a `dagster.Failure` with a readable sentence, retried only if a retry may help."""
    try:
        yield
    except SeedTrustError as error:
        raise _to_failure(str(error), error, retry=error.retry_may_help) from None
    except DBAPIError as error:
        if is_lock_timeout(error):
            locked = RowLocked(_describe_lock(error))
            raise _to_failure(str(locked), locked, retry=True) from None
        if is_connection_lost(error) and _sqlstate(error) != IDLE_IN_TRANSACTION_TIMEOUT:
            unreachable = unreachable_error(application_url(), error)
            raise _to_failure(str(unreachable), unreachable, retry=True) from error
        # `from None` because the driver's own message quotes the rows concerned, personal data included.
        raise _to_failure(
            _describe_database_error(error), error, retry=_sqlstate(error) == IDLE_IN_TRANSACTION_TIMEOUT
        ) from None


def _to_failure(sentence: str, error: Exception, *, retry: bool) -> dg.Failure:
    notes = getattr(error, "__notes__", [])
    metadata: dict[str, dg.MetadataValue[Any]] = {
        ERROR_TYPE: dg.MetadataValue.text(type(error).__name__),
        ERROR_MEANING: dg.MetadataValue.text(inspect.cleandoc(type(error).__doc__ or "").partition("\n")[0]),
        TRACEBACK: dg.MetadataValue.text("".join(traceback.format_tb(error.__traceback__)[-MAX_FRAMES:])),
    }
    if isinstance(error, InputError):
        metadata[INPUT_ERROR] = dg.MetadataValue.bool(True)
    return dg.Failure(
        description=" ".join([sentence, *notes]),
        metadata=metadata,
        allow_retries=retry and not _is_last_attempt(),
    )


def _is_last_attempt() -> bool:
    """Return whether the current op has no retry left.

    If a failure allowed a retry then, Dagster would report that retries are exceeded and hide our sentence.
    """
    try:
        op = dg.OpExecutionContext.get()
    except dg.DagsterInvariantViolationError:
        return False
    return op.retry_number >= RETRIES.max_retries


def _describe_database_error(error: DBAPIError) -> str:
    """Return a sentence on a statement that the database rejected, without the rows that the driver quotes."""
    sqlstate = _sqlstate(error)
    diagnosis = getattr(error.orig, "diag", None)
    message = getattr(diagnosis, "message_primary", None) or type(error.orig).__name__
    if sqlstate in (UNDEFINED_TABLE, UNDEFINED_COLUMN):
        return (
            f"The database is missing a table or column that this job uses ({message}). Run `seedtrust-ops migrate`: "
            "it brings schema ops up to date and lists what is missing in schema public."
        )
    if sqlstate == IDLE_IN_TRANSACTION_TIMEOUT:
        return (
            "The database ended this job's transaction because it was idle too long: the process was frozen or the "
            "machine is overloaded. The transaction was rolled back, and the next attempt or run repeats it. If this "
            "keeps happening, check the load on the machine."
        )
    if sqlstate == RAISE_EXCEPTION:
        message = "a trigger raised an exception; see the database log for its message"
    return (
        f"The database rejected a statement of this job: {message} ({sqlstate}). The transaction was rolled back. "
        "Either the data violates a constraint or this program has a bug; the traceback is in this failure's metadata."
        f"{_describe_row(error)}"
    )


def _describe_lock(error: DBAPIError) -> str:
    """Return a sentence on a row that another application held locked, with its table if that is known."""
    context = getattr(getattr(error.orig, "diag", None), "context", None) or ""
    table = re.search(r'in relation "(\w+)"', context)
    row = f"a row of table {table[1]}" if table is not None else "a row or table"
    return (
        f"Another application holds {row} locked, and the database did not wait longer. The transaction was rolled "
        "back, and the next attempt or run repeats it. If this keeps happening, find out which application holds the "
        "lock."
    )


def _describe_row(error: DBAPIError) -> str:
    """Return which row a constraint refused, as far as the database names it by a number."""
    detail = getattr(getattr(error.orig, "diag", None), "message_detail", None) or ""
    key = re.match(r"Key \((\w*id)\)=\(([0-9]{1,18})\)", detail)
    return f" The row: {key[1]} {key[2]}." if key is not None else ""


def _sqlstate(error: DBAPIError) -> str | None:
    sqlstate: str | None = getattr(error.orig, "sqlstate", None)
    return sqlstate
