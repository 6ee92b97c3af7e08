"""Runs a piece of work in one database transaction, again from the start where PostgreSQL broke a deadlock.

It decides nothing about the work; a piece of work given to it must be safe to run from the start.
"""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

Result = TypeVar("Result")
Sessions = sessionmaker[Session]

# PostgreSQL's documentation, appendix A: serialization_failure and deadlock_detected ask for the
# transaction to be run again.
_RUN_AGAIN = {"40001", "40P01"}


def _asks_to_run_again(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _RUN_AGAIN


def run_in_transaction(sessions: Sessions, work: Callable[[Session], Result]) -> Result:
    """Run `work` in a transaction, commit it and return what it returned; 5 tries against deadlocks."""
    for attempt in Retrying(
        retry=retry_if_exception(_asks_to_run_again),
        wait=wait_random_exponential(multiplier=0.02, max=0.5),
        stop=stop_after_attempt(5),
        reraise=True,
    ):
        with attempt, sessions.begin() as session:
            result = work(session)
    return result
