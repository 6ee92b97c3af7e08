"""What the contract lets a client do: originate once for each key, look transfers up, read a balance.

It speaks neither HTTP nor faults. What only a test may do to a bank is in interventions.py.
"""

import hashlib
import hmac
import json
import secrets
import sqlite3
from typing import get_args

from seedtrust_ops.sandbox.bank.contract import (
    Answer,
    Position,
    RefusalCode,
    Search,
    TransferRequest,
    cursor_after,
    problem,
    routing_number_is_real,
    shown_moment,
)
from seedtrust_ops.sandbox.bank.store import Store

# Counterparties that this bank always refuses, by account number: 4220000001 to 4220000004.
REFUSED_ACCOUNT_NUMBERS: dict[str, RefusalCode] = {
    f"422000000{number}": code for number, code in enumerate(get_args(RefusalCode), start=1)
}

REFUSALS: dict[RefusalCode, str] = {
    "invalid_account": "The counterparty's account cannot be paid.",
    "invalid_amount": "The amount cannot be paid.",
    "insufficient_funds": "The funding account does not hold enough to cover this transfer.",
    "limit_exceeded": "The transfer is above what may be sent.",
}


class Ledger:
    """The bank's books, over one open store."""

    def __init__(self, store: Store, *, page_size: int) -> None:
        """`page_size` is how many transfers a page of find_transfers holds at most."""
        self.store = store
        self.page_size = page_size

    def knows_key(self, key: str) -> bool:
        """Whether an answer was ever given under this idempotency key."""
        found = self.store.connection.execute("SELECT 1 FROM keys WHERE key = ?", (key,)).fetchone()
        return found is not None

    def originate(self, key: str, request: TransferRequest, refuse_with: RefusalCode | None = None) -> Answer:
        """Move the money of one request, once for its key; when this returns, the answer is on disk.

        Answers 201 with the transfer, 200 with the first answer, 409 where the key had another body, or 422.
        A refusal is kept with its key like any other answer: final means that the same request is refused
        next week too. `refuse_with` refuses a request whose key is new.
        """
        digest = hmac.digest(self.store.digest_secret, request.model_dump_json().encode(), hashlib.sha256)
        connection = self.store.connection
        with self.store.transaction() as moment:
            seen = connection.execute("SELECT body_digest, status, answer FROM keys WHERE key = ?", (key,)).fetchone()
            if seen is not None and not hmac.compare_digest(seen["body_digest"], digest):
                message = "This Idempotency-Key was used before, with another body."
                return problem(409, "idempotency_key_reuse", message)
            if seen is not None:
                return Answer(200 if seen["status"] == 201 else seen["status"], seen["answer"])
            refusal = refuse_with or self._refusal(request)
            if refusal is None:
                answer = Answer(201, self._insert(key, request, moment))
            else:
                answer = problem(422, refusal, REFUSALS[refusal])
            connection.execute(
                "INSERT INTO keys (key, body_digest, status, answer) VALUES (?, ?, ?, ?)",
                (key, digest, answer.status, answer.body),
            )
        return answer

    def _refusal(self, request: TransferRequest) -> RefusalCode | None:
        if not routing_number_is_real(request.counterparty.routing_number):
            return "invalid_account"
        account = self.store.connection.execute(
            "SELECT available_cents FROM accounts WHERE id = ?", (request.funding_account_id,)
        ).fetchone()
        if account is None:
            return "invalid_account"
        if request.counterparty.account_number in REFUSED_ACCOUNT_NUMBERS:
            return REFUSED_ACCOUNT_NUMBERS[request.counterparty.account_number]
        if account["available_cents"] < request.amount_cents:
            return "insufficient_funds"
        return None

    def _insert(self, key: str, request: TransferRequest, moment: int) -> bytes:
        is_wire = request.method == "wire"
        transfer = self.store.connection.execute(
            "INSERT INTO transfers (id, idempotency_key, status, method, amount_cents, reference, "
            "created_at, updated_at, account_id, settles_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING *",
            (
                f"tr_{secrets.token_hex(12)}",
                key,
                "completed" if is_wire else "accepted",
                request.method,
                request.amount_cents,
                request.reference,
                moment,
                moment,
                request.funding_account_id,
                None if is_wire else moment + self.store.settlement,
            ),
        ).fetchone()
        self.store.move_money(transfer, "out", "originated", moment)
        return json.dumps(shown_transfer(transfer)).encode()

    def find(self, search: Search) -> Answer:
        """A page of transfers, oldest update first, and the cursor of the next one (null at the end)."""
        conditions = ["true"]
        values: list[str | int] = []
        if search.filters.keys:
            conditions.append("idempotency_key IN (SELECT value FROM json_each(?))")
            values.append(json.dumps(search.filters.keys))
        if search.filters.references:
            conditions.append("reference IN (SELECT value FROM json_each(?))")
            values.append(json.dumps(search.filters.references))
        if search.filters.updated_since is not None:
            conditions.append("updated_at >= ?")
            values.append(search.filters.updated_since)
        if search.after is not None:
            conditions.append("(updated_at, id) > (?, ?)")
            values.extend(search.after)
        where = " AND ".join(conditions)
        sql = f"SELECT * FROM transfers WHERE {where} ORDER BY updated_at, id LIMIT ?"  # noqa: S608 - our words
        with self.store.transaction():
            found = self.store.connection.execute(sql, (*values, self.page_size + 1)).fetchall()
        page, more = found[: self.page_size], found[self.page_size :]
        last = Position(page[-1]["updated_at"], page[-1]["id"]) if more else None
        shown = {
            "data": [shown_transfer(row) for row in page],
            "next_cursor": cursor_after(last, search.filters) if last else None,
        }
        return Answer(200, json.dumps(shown).encode())

    def transfer(self, transfer_id: str) -> Answer:
        """One transfer as it is now, or 404."""
        with self.store.transaction():
            row = self.store.connection.execute("SELECT * FROM transfers WHERE id = ?", (transfer_id,)).fetchone()
        if row is None:
            return problem(404, "not_found", "There is no transfer with this id.")
        return Answer(200, json.dumps(shown_transfer(row)).encode())

    def account(self, account_id: str) -> Answer:
        """A funding account and what it can still send, in cents, or 404."""
        row = self.store.connection.execute(
            "SELECT id, available_cents, 'USD' AS currency FROM accounts WHERE id = ?", (account_id,)
        ).fetchone()
        if row is None:
            return problem(404, "not_found", "There is no account with this id.")
        return Answer(200, json.dumps(dict(row)).encode())


def shown_transfer(row: sqlite3.Row) -> dict[str, object]:
    """A row of `transfers` as the contract's Transfer."""
    return {
        "id": row["id"],
        "idempotency_key": row["idempotency_key"],
        "status": row["status"],
        "return_code": row["return_code"],
        "reason": row["reason"],
        "method": row["method"],
        "amount_cents": row["amount_cents"],
        "currency": "USD",
        "reference": row["reference"],
        "created_at": shown_moment(row["created_at"]),
        "updated_at": shown_moment(row["updated_at"]),
    }
