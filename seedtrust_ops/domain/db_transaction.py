"""Runs a function in one database transaction and retries it after a deadlock or serialization failure.

The function must be safe to run again from the start.
See docs/decisions/leases-and-fencing.md.
"""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

Result = TypeVar("Result")
Sessions = sessionmaker[Session]

# serialization_failure and deadlock_detected (PostgreSQL documentation, appendix A): retry the whole transaction.
_RETRYABLE_SQLSTATES = {"40001", "40P01"}


def _is_retryable(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _RETRYABLE_SQLSTATES


def run_in_transaction(sessions: Sessions, work: Callable[[Session], Result]) -> Result:
    """Run `work` in a transaction, commit, and return its result; at most 5 attempts after deadlocks."""
    for attempt in Retrying(
        retry=retry_if_exception(_is_retryable),
        wait=wait_random_exponential(multiplier=0.02, max=0.5),
        stop=stop_after_attempt(5),
        reraise=True,
    ):
        with attempt, sessions.begin() as session:
            result = work(session)
    return result
