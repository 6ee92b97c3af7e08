"""Backs up and restores the bank's books, to simulate a bank that was restored from an older backup.

A restored bank has lost transfers that really happened, so the journals of movements and of requests are not restored.
"""

from pathlib import Path

from seedtrust_ops.sandbox.bank.contract import ProblemError, problem_response
from seedtrust_ops.sandbox.bank.store import Store

BOOKS = ("keys", "transfers", "accounts")
"""Tables in the order in which foreign keys let them be emptied; they are filled in reverse."""


def back_up(store: Store, name: str) -> None:
    """Copy all books to a file next to the bank's own; an older copy of that name is replaced."""
    copy = _copy(store, name)
    copy.unlink(missing_ok=True)
    store.connection.execute("VACUUM INTO ?", (str(copy),))


def restore(store: Store, name: str) -> None:
    """Restore the books from a copy; raises ProblemError (404) if there is none of that name."""
    copy = _copy(store, name)
    if not copy.exists():
        raise ProblemError(problem_response(404, "not_found", "The bank has no backup of this name."))
    store.connection.execute("ATTACH ? AS copy", (str(copy),))
    try:
        with store.transaction():
            for table in BOOKS:
                store.connection.execute(f"DELETE FROM main.{table}")  # noqa: S608 - our own table names
            for table in reversed(BOOKS):
                store.connection.execute(f"INSERT INTO main.{table} SELECT * FROM copy.{table}")  # noqa: S608
    finally:
        store.connection.execute("DETACH copy")


def _copy(store: Store, name: str) -> Path:
    return store.path.with_name(f"{store.path.name}.{name}.backup")
