"""Copies of the bank's books, and their return: what a bank knows after it was restored from last hour's backup.

What the bank then has forgotten has happened all the same: the journals of movements and of requests stay as they are.
"""

from pathlib import Path

from seedtrust_ops.sandbox.bank.contract import ProblemError, problem
from seedtrust_ops.sandbox.bank.store import Store

BOOKS = ("keys", "transfers", "accounts")
"""In the order in which they can be emptied; they are filled the other way around."""


def back_up(store: Store, name: str) -> None:
    """Keep a copy of all books beside the bank's file; an older copy of that name is replaced."""
    copy = _copy(store, name)
    copy.unlink(missing_ok=True)
    store.connection.execute("VACUUM INTO ?", (str(copy),))


def restore(store: Store, name: str) -> None:
    """Put the books back to a copy; raises ProblemError (404) where there is none of that name."""
    copy = _copy(store, name)
    if not copy.exists():
        raise ProblemError(problem(404, "not_found", "The bank has no backup of this name."))
    store.connection.execute("ATTACH ? AS copy", (str(copy),))
    try:
        with store.transaction():
            for table in BOOKS:
                store.connection.execute(f"DELETE FROM main.{table}")  # noqa: S608 - our words
            for table in reversed(BOOKS):
                store.connection.execute(f"INSERT INTO main.{table} SELECT * FROM copy.{table}")  # noqa: S608
    finally:
        store.connection.execute("DETACH copy")


def _copy(store: Store, name: str) -> Path:
    return store.path.with_name(f"{store.path.name}.{name}.backup")
