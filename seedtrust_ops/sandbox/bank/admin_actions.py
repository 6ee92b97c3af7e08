"""Changes to the bank's books that no API client can make, such as returns, lost keys and restored backups.

Only tests and the demo use it. It also reads out the whole ledger, so that they can check what SeedTrust recorded.
"""

import json
import secrets
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from seedtrust_ops.sandbox.bank.contract import ProblemError, format_timestamp, parse_timestamp, problem_response
from seedtrust_ops.sandbox.bank.ledger import transfer_json
from seedtrust_ops.sandbox.bank.store import Store

Status = Literal["accepted", "completed", "rejected", "returned"]
ReturnCode = Annotated[str, Field(pattern="^R[0-9]{2}$")]

BOOKS = ("keys", "transfers", "accounts")
"""Tables in the order in which foreign keys let them be emptied; they are filled in reverse."""


class InsertedTransfer(BaseModel):
    """A transfer to write straight into the books, for example one that the legacy worker made with its own key."""

    model_config = ConfigDict(extra="forbid")

    reference: Annotated[str, Field(max_length=35)]
    amount_cents: Annotated[int, Field(ge=1, le=9_999_999_999)]
    idempotency_key: str | None = None
    """Generated (legacy-...) if null."""
    method: Literal["ach", "wire"] = "ach"
    status: Status = "completed"
    return_code: ReturnCode | None = None
    reason: str | None = None
    created_at: AwareDatetime | None = None
    """Now if null. It is also used as the time of the last update."""


def insert_transfer(store: Store, inserted: InsertedTransfer) -> dict[str, object]:
    """Insert a transfer and its movements of money.

    An accepted one settles one settlement period from now, whatever its `created_at`.

    Raises:
        ProblemError: if the bank could not have made it: a future date, a used key, or insufficient funds.
    """
    key = inserted.idempotency_key or f"legacy-{secrets.token_hex(12)}"
    return_code = inserted.return_code or ("R01" if inserted.status == "returned" else None)
    with store.transaction() as now:
        created_at = now if inserted.created_at is None else parse_timestamp(inserted.created_at.isoformat())
        if created_at > now:
            raise ProblemError(problem_response(422, "invalid_control", "created_at must not be in the future."))
        if store.connection.execute("SELECT 1 FROM keys WHERE key = ?", (key,)).fetchone():
            raise ProblemError(problem_response(409, "invalid_control", "This idempotency key is already in use."))
        account = store.connection.execute("SELECT * FROM accounts ORDER BY id LIMIT 1").fetchone()
        if inserted.status != "rejected":
            _require_funds(store, account["id"], inserted.amount_cents)
        transfer = store.connection.execute(
            "INSERT INTO transfers (id, idempotency_key, status, return_code, reason, method, amount_cents, "
            "reference, created_at, updated_at, settles_at, inserted, account_id) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?) RETURNING *",
            (
                f"tr_{secrets.token_hex(12)}",
                key,
                inserted.status,
                return_code,
                inserted.reason,
                inserted.method,
                inserted.amount_cents,
                inserted.reference,
                created_at,
                created_at,
                now + store.settlement if inserted.status == "accepted" else None,
                account["id"],
            ),
        ).fetchone()
        # No real body has an empty digest, so a client that uses this key gets 409.
        store.connection.execute("INSERT INTO keys VALUES (?, ?, 201, ?)", (key, b"", b""))
        if inserted.status != "rejected":
            store.move_money(transfer, "out", "inserted", created_at)
        if inserted.status == "returned":
            store.move_money(transfer, "back", "returned", created_at)
    return transfer_json(transfer)


def return_transfer(store: Store, transfer_id: str, return_code: str) -> dict[str, object]:
    """Return an accepted or completed ACH with its return code; the money goes back to the funding account."""
    with store.transaction() as now:
        transfer = _get(store, transfer_id)
        if transfer["method"] != "ach" or transfer["status"] not in ("accepted", "completed"):
            message = (
                "Only an accepted or completed ACH can be returned. "
                f"This is a {transfer['status']} {transfer['method']}."
            )
            raise ProblemError(problem_response(409, "invalid_control", message))
        return _reverse(store, transfer, "returned", return_code, None, now)


def reject_transfer(store: Store, transfer_id: str, reason: str) -> dict[str, object]:
    """Reject an accepted transfer before it settles; the money goes back to the funding account."""
    with store.transaction() as now:
        transfer = _get(store, transfer_id)
        if transfer["status"] != "accepted":
            message = f"Only an accepted transfer can be rejected. This one is {transfer['status']}."
            raise ProblemError(problem_response(409, "invalid_control", message))
        return _reverse(store, transfer, "rejected", None, reason, now)


def dishonor_return(store: Store, transfer_id: str) -> dict[str, object]:
    """Send a returned ACH back out: the payee's bank has to keep it after all (a dishonored return)."""
    with store.transaction() as now:
        transfer = _get(store, transfer_id)
        if transfer["status"] != "returned":
            message = f"Only a returned ACH can be dishonored. This one is {transfer['status']}."
            raise ProblemError(problem_response(409, "invalid_control", message))
        _require_funds(store, transfer["account_id"], transfer["amount_cents"])
        changed = store.connection.execute(
            "UPDATE transfers SET status = 'completed', return_code = NULL, updated_at = ? WHERE id = ? RETURNING *",
            (now, transfer_id),
        ).fetchone()
        store.move_money(changed, "out", "dishonored", now)
        return transfer_json(changed)


def _require_funds(store: Store, account_id: str, cents: int) -> None:
    (available_cents,) = store.connection.execute(
        "SELECT available_cents FROM accounts WHERE id = ?", (account_id,)
    ).fetchone()
    if available_cents < cents:
        raise ProblemError(
            problem_response(422, "invalid_control", "The funding account's balance is too low for this transfer.")
        )


def _reverse(
    store: Store, transfer: sqlite3.Row, status: str, return_code: str | None, reason: str | None, now: int
) -> dict[str, object]:
    changed = store.connection.execute(
        "UPDATE transfers SET status = ?, return_code = ?, reason = ?, updated_at = ? WHERE id = ? RETURNING *",
        (status, return_code, reason, now, transfer["id"]),
    ).fetchone()
    store.move_money(changed, "back", status, now)
    return transfer_json(changed)


def settle_all(store: Store) -> int:
    """Complete every accepted transfer now, due or not; returns how many there were."""
    with store.transaction() as now:
        settled = store.connection.execute(
            "UPDATE transfers SET status = 'completed', updated_at = ? WHERE status = 'accepted'", (now,)
        )
        return settled.rowcount


def set_available_cents(store: Store, available_cents: int) -> dict[str, object]:
    """Fund or drain the funding account, as if money had come from or gone to another bank.

    The opening balance changes by as much, so that opening balance and movements still add up to the available one.
    """
    with store.transaction():
        account = store.connection.execute(
            "UPDATE accounts SET opening_cents = opening_cents + ?1 - available_cents, available_cents = ?1"
            " WHERE id = (SELECT id FROM accounts ORDER BY id LIMIT 1) RETURNING *",
            (available_cents,),
        ).fetchone()
    return dict(account)


def misreport(store: Store, reference: str, fields: dict[str, JsonValue]) -> dict[str, object]:
    """Report every transfer with this reference with these fields, whatever is true; no fields end that."""
    with store.transaction():
        store.connection.execute("DELETE FROM misreports WHERE reference = ?", (reference,))
        if fields:
            store.connection.execute("INSERT INTO misreports VALUES (?, ?)", (reference, json.dumps(fields)))
    return {"reference": reference, "fields": fields}


def end_misreports(store: Store) -> None:
    """Report everything as it is again."""
    store.connection.execute("DELETE FROM misreports")


def forget_key(store: Store, key: str) -> dict[str, object]:
    """Make the bank lose an idempotency key: lookups no longer find it, and a request with it moves money again.

    The transfer stays, under a generated key; the journal of movements keeps the original key.
    """
    with store.transaction():
        if not store.connection.execute("DELETE FROM keys WHERE key = ?", (key,)).rowcount:
            raise ProblemError(
                problem_response(404, "not_found", "The bank has no transfer with this idempotency key.")
            )
        store.connection.execute(
            "UPDATE transfers SET idempotency_key = 'forgotten-' || id WHERE idempotency_key = ?", (key,)
        )
    return {"forgotten": key}


def back_up(store: Store, name: str) -> None:
    """Copy all books to a file next to the bank's own; an older copy of that name is replaced."""
    copy = _backup_path(store, name)
    copy.unlink(missing_ok=True)
    store.connection.execute("VACUUM INTO ?", (str(copy),))


def restore(store: Store, name: str) -> None:
    """Restore the books from a copy; raises ProblemError (404) if there is none of that name.

    A restored bank has lost transfers that really happened, so the journals of movements and requests are not restored.
    """
    copy = _backup_path(store, name)
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


def find_transfer_id(store: Store, reference: str) -> str:
    """Return the id of the transfer with this reference; raises ProblemError unless there is exactly one."""
    found = store.connection.execute("SELECT id FROM transfers WHERE reference = ?", (reference,)).fetchall()
    if len(found) != 1:
        status = 409 if found else 404
        message = f"{len(found)} transfers have this reference, expected exactly one."
        raise ProblemError(problem_response(status, "invalid_control", message))
    return str(found[0]["id"])


def ledger_snapshot(store: Store) -> dict[str, object]:
    """Return all transfers and all movements of money, oldest first."""
    with store.transaction():
        transfers = store.connection.execute("SELECT * FROM transfers ORDER BY created_at, id").fetchall()
        movements = store.connection.execute("SELECT * FROM movements ORDER BY id").fetchall()
    return {
        "transfers": [{**transfer_json(row), "inserted": bool(row["inserted"])} for row in transfers],
        "movements": [{**dict(row), "at": format_timestamp(row["at"])} for row in movements],
    }


def totals(store: Store) -> dict[str, object]:
    """Return counts and cents by status, cents out and back, balances, and everything that was paid more than once.

    Paid more than once: money went out twice for one key or reference and did not come back.
    """
    with store.transaction():
        connection = store.connection
        by_status = connection.execute(
            "SELECT status, count(*) AS transfers, sum(amount_cents) AS cents FROM transfers GROUP BY status"
        ).fetchall()
        accounts = connection.execute("SELECT * FROM accounts ORDER BY id").fetchall()
        movements = connection.execute("SELECT * FROM movements").fetchall()
    moved: Counter[str] = Counter()
    by_key: Counter[str] = Counter()
    by_reference: Counter[str] = Counter()
    for row in movements:
        moved[row["direction"]] += row["amount_cents"]
        by_key[row["idempotency_key"]] += 1 if row["direction"] == "out" else -1
        by_reference[row["reference"]] += 1 if row["direction"] == "out" else -1
    return {
        "transfers": sum(row["transfers"] for row in by_status),
        "by_status": {row["status"]: {"transfers": row["transfers"], "cents": row["cents"]} for row in by_status},
        "out_cents": moved["out"],
        "back_cents": moved["back"],
        "accounts": [dict(row) for row in accounts],
        "keys_paid_more_than_once": sorted(key for key, paid in by_key.items() if paid > 1),
        "references_paid_more_than_once": sorted(reference for reference, paid in by_reference.items() if paid > 1),
    }


def _backup_path(store: Store, name: str) -> Path:
    return store.path.with_name(f"{store.path.name}.{name}.backup")


def _get(store: Store, transfer_id: str) -> sqlite3.Row:
    found: sqlite3.Row | None = store.connection.execute(
        "SELECT * FROM transfers WHERE id = ?", (transfer_id,)
    ).fetchone()
    if found is None:
        raise ProblemError(problem_response(404, "not_found", "There is no transfer with this id."))
    return found
