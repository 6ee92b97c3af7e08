"""What happens to a bank's books without a client asking: returns, rejections, legacy transfers, lost keys.

Only tests and the demo call it. It also shows all that is in the books, for them to check what was believed.
"""

import secrets
import sqlite3
from collections import Counter
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from seedtrust_ops.sandbox.bank.contract import ProblemError, problem, read_moment, shown_moment
from seedtrust_ops.sandbox.bank.ledger import shown_transfer
from seedtrust_ops.sandbox.bank.store import Store

Status = Literal["accepted", "completed", "rejected", "returned"]
ReturnCode = Annotated[str, Field(pattern="^R[0-9]{2}$")]


class PlantedTransfer(BaseModel):
    """A transfer that someone else made, such as the legacy worker with a key of its own."""

    model_config = ConfigDict(extra="forbid")

    reference: Annotated[str, Field(max_length=35)]
    amount_cents: Annotated[int, Field(ge=1, le=9_999_999_999)]
    idempotency_key: str | None = None
    """Made up (legacy-...) where it is null."""
    method: Literal["ach", "wire"] = "ach"
    status: Status = "completed"
    return_code: ReturnCode | None = None
    reason: str | None = None
    created_at: AwareDatetime | None = None
    """Now where it is null; the transfer was last updated then, too."""


def plant(store: Store, planted: PlantedTransfer) -> dict[str, object]:
    """Enter a transfer and its movements of money; raises ProblemError where it could not have been made.

    An accepted one settles one settlement time from now, whenever it was made.
    """
    key = planted.idempotency_key or f"legacy-{secrets.token_hex(12)}"
    return_code = planted.return_code or ("R01" if planted.status == "returned" else None)
    with store.transaction() as moment:
        made_at = moment if planted.created_at is None else read_moment(planted.created_at.isoformat())
        if made_at > moment:
            raise ProblemError(problem(422, "invalid_control", "A transfer cannot be planted in the bank's future."))
        if store.connection.execute("SELECT 1 FROM keys WHERE key = ?", (key,)).fetchone():
            raise ProblemError(problem(409, "invalid_control", "The bank has this idempotency key already."))
        account = store.connection.execute("SELECT * FROM accounts ORDER BY id LIMIT 1").fetchone()
        if planted.status != "rejected" and account["available_cents"] < planted.amount_cents:
            raise ProblemError(problem(422, "invalid_control", "The funding account does not hold that much."))
        transfer = store.connection.execute(
            "INSERT INTO transfers (id, idempotency_key, status, return_code, reason, method, amount_cents, "
            "reference, created_at, updated_at, settles_at, planted, account_id) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?) RETURNING *",
            (
                f"tr_{secrets.token_hex(12)}",
                key,
                planted.status,
                return_code,
                planted.reason,
                planted.method,
                planted.amount_cents,
                planted.reference,
                made_at,
                made_at,
                moment + store.settlement if planted.status == "accepted" else None,
                account["id"],
            ),
        ).fetchone()
        # No body has an empty digest: a client that uses this key gets 409.
        store.connection.execute("INSERT INTO keys VALUES (?, ?, 201, ?)", (key, b"", b""))
        if planted.status != "rejected":
            store.move_money(transfer, "out", "planted", made_at)
        if planted.status == "returned":
            store.move_money(transfer, "back", "returned", made_at)
    return shown_transfer(transfer)


def send_back(store: Store, transfer_id: str, return_code: str) -> dict[str, object]:
    """Return an ACH, settled or not, with its R-code; its money comes back."""
    with store.transaction() as moment:
        transfer = _get(store, transfer_id)
        if transfer["method"] != "ach" or transfer["status"] not in ("accepted", "completed"):
            message = (
                "Only an accepted or completed ACH can be returned, "
                f"and this is a {transfer['status']} {transfer['method']}."
            )
            raise ProblemError(problem(409, "invalid_control", message))
        return _undo(store, transfer, "returned", return_code, None, moment)


def reject(store: Store, transfer_id: str, reason: str) -> dict[str, object]:
    """Stop a transfer before it settles, giving a reason; its money comes back."""
    with store.transaction() as moment:
        transfer = _get(store, transfer_id)
        if transfer["status"] != "accepted":
            message = f"Only an accepted transfer can be rejected, not a {transfer['status']} one."
            raise ProblemError(problem(409, "invalid_control", message))
        return _undo(store, transfer, "rejected", None, reason, moment)


def _undo(
    store: Store, transfer: sqlite3.Row, status: str, return_code: str | None, reason: str | None, moment: int
) -> dict[str, object]:
    changed = store.connection.execute(
        "UPDATE transfers SET status = ?, return_code = ?, reason = ?, updated_at = ? WHERE id = ? RETURNING *",
        (status, return_code, reason, moment, transfer["id"]),
    ).fetchone()
    store.move_money(changed, "back", status, moment)
    return shown_transfer(changed)


def settle_all(store: Store) -> int:
    """Settle every accepted transfer now, due or not; returns how many there were."""
    with store.transaction() as moment:
        settled = store.connection.execute(
            "UPDATE transfers SET status = 'completed', updated_at = ? WHERE status = 'accepted'", (moment,)
        )
        return settled.rowcount


def forget_key(store: Store, key: str) -> dict[str, object]:
    """Make the bank lose an idempotency key: look-ups miss it, and a request under it moves money again.

    The transfer stays, under a key that nobody chose; the journal of movements keeps the old key.
    """
    with store.transaction():
        if not store.connection.execute("DELETE FROM keys WHERE key = ?", (key,)).rowcount:
            raise ProblemError(problem(404, "not_found", "The bank does not have this idempotency key."))
        store.connection.execute(
            "UPDATE transfers SET idempotency_key = 'forgotten-' || id WHERE idempotency_key = ?", (key,)
        )
    return {"forgotten": key}


def transfer_with_reference(store: Store, reference: str) -> str:
    """The id of the one transfer that bears a reference; raises ProblemError unless there is exactly one."""
    found = store.connection.execute("SELECT id FROM transfers WHERE reference = ?", (reference,)).fetchall()
    if len(found) != 1:
        status = 409 if found else 404
        message = f"{len(found)} transfers bear this reference, where exactly one is needed."
        raise ProblemError(problem(status, "invalid_control", message))
    return str(found[0]["id"])


def books(store: Store) -> dict[str, object]:
    """All transfers, oldest first, and the journal: one row for each time that money moved."""
    with store.transaction():
        transfers = store.connection.execute("SELECT * FROM transfers ORDER BY created_at, id").fetchall()
        movements = store.connection.execute("SELECT * FROM movements ORDER BY id").fetchall()
    return {
        "transfers": [{**shown_transfer(row), "planted": bool(row["planted"])} for row in transfers],
        "movements": [{**dict(row), "at": shown_moment(row["at"])} for row in movements],
    }


def totals(store: Store) -> dict[str, object]:
    """Counts and cents by status, cents out and back, balances, and whatever was paid more often than once.

    Paid more than once: money went out twice under one key or reference, and did not come back.
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


def _get(store: Store, transfer_id: str) -> sqlite3.Row:
    found: sqlite3.Row | None = store.connection.execute(
        "SELECT * FROM transfers WHERE id = ?", (transfer_id,)
    ).fetchone()
    if found is None:
        raise ProblemError(problem(404, "not_found", "There is no transfer with this id."))
    return found
