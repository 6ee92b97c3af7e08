"""Turns an error of a job into a Dagster failure that people can read: what failed, which record, what to do.

Also the retry policy of every op, because the last try has to be told from the others.
"""

import inspect
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from seedtrust_ops.database.engine import application_url, unreachable
from seedtrust_ops.errors import SeedTrustError

RETRIES = dg.RetryPolicy(max_retries=2, delay=2, backoff=dg.Backoff.EXPONENTIAL)
"""Design, section 1: two retries, exponential from 2 seconds (Dagster waits 2, then 6)."""
UNDEFINED_TABLE = "42P01"
UNDEFINED_COLUMN = "42703"
RAISED_BY_A_TRIGGER = "P0001"
IDLE_IN_TRANSACTION = "25P03"
FRAMES_SHOWN = 30
KIND, MEANING, WHERE = "kind of trouble", "what it means", "where"
"""What a failure tells beside its sentence; `monitoring/` reads it from there."""


@contextmanager
def user_facing_failures() -> Iterator[None]:
    """Turn trouble into a `dagster.Failure` whose text is a sentence, retried only where that may help."""
    try:
        yield
    except SeedTrustError as error:
        raise _failure(str(error), error, retry=error.retry_may_help) from None
    except (OperationalError, InterfaceError) as error:
        trouble = unreachable(application_url(), error)
        raise _failure(str(trouble), trouble, retry=True) from error
    except DBAPIError as error:
        # `from None`: the driver's own text shows the rows that it was about, with all that is in them.
        raise _failure(_refusal(error), error, retry=_sqlstate(error) == IDLE_IN_TRANSACTION) from None


def _failure(sentence: str, error: Exception, *, retry: bool) -> dg.Failure:
    notes = getattr(error, "__notes__", [])
    return dg.Failure(
        description=" ".join([sentence, *notes]),
        metadata={
            KIND: type(error).__name__,
            MEANING: dg.MetadataValue.text(inspect.cleandoc(type(error).__doc__ or "").partition("\n")[0]),
            WHERE: dg.MetadataValue.text("".join(traceback.format_tb(error.__traceback__)[-FRAMES_SHOWN:])),
        },
        allow_retries=retry and not _last_try(),
    )


def _last_try() -> bool:
    """Return whether an op runs for the last time.

    Dagster would say of a failure that it may not retry again that its retries are exceeded, and hide the sentence
    behind that.
    """
    try:
        op = dg.OpExecutionContext.get()
    except dg.DagsterInvariantViolationError:
        return False
    return op.retry_number >= RETRIES.max_retries


def _refusal(error: DBAPIError) -> str:
    """Return what the database said of a statement, without the rows that it quotes."""
    sqlstate = _sqlstate(error)
    diagnosis = getattr(error.orig, "diag", None)
    said = getattr(diagnosis, "message_primary", None) or type(error.orig).__name__
    if sqlstate in (UNDEFINED_TABLE, UNDEFINED_COLUMN):
        return (
            f"The database lacks something that this job uses ({said}). Run `seedtrust-ops migrate`, which brings "
            "schema ops up to date and names what schema public lacks."
        )
    if sqlstate == IDLE_IN_TRANSACTION:
        return (
            "The database ended a transaction in which this job had been silent for too long: its process was frozen, "
            "or the machine is too busy. Nothing of that transaction was kept, and the next try or run does it again. "
            "If it goes on, see what keeps the machine busy."
        )
    if sqlstate == RAISED_BY_A_TRIGGER:
        said = "a trigger raised an exception; the database's log has its words"
    return (
        f"The database refused a statement of this job: {said} ({sqlstate}). Nothing of that transaction was kept. "
        "Either the data breaks a rule of the database or this program has a mistake; where it was is shown beside."
    )


def _sqlstate(error: DBAPIError) -> str | None:
    sqlstate: str | None = getattr(error.orig, "sqlstate", None)
    return sqlstate
