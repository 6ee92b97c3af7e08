"""What an API client can do: originate a transfer once per idempotency key, look transfers up, read a balance.

HTTP is in `server`, faults are in `faults`, and changes that only tests may make are in `admin_actions`.
"""

import hashlib
import hmac
import json
import secrets
import sqlite3
from typing import get_args

from seedtrust_ops.sandbox.bank.contract import (
    BankResponse,
    Position,
    RefusalCode,
    Search,
    TransferRequest,
    encode_cursor,
    format_timestamp,
    has_valid_check_digit,
    problem_response,
)
from seedtrust_ops.sandbox.bank.store import Store

# Account numbers that this bank always refuses, one for each code: 4220000001 to 4220000004.
REFUSED_ACCOUNT_NUMBERS: dict[str, RefusalCode] = {
    f"422000000{number}": code for number, code in enumerate(get_args(RefusalCode), start=1)
}

REFUSALS: dict[RefusalCode, str] = {
    "invalid_account": "The counterparty's account cannot receive this transfer.",
    "invalid_amount": "The amount is not allowed.",
    "insufficient_funds": "The funding account's balance is too low for this transfer.",
    "limit_exceeded": "The transfer exceeds the sending limit.",
}


class Ledger:
    """The bank's books, over one open store."""

    def __init__(self, store: Store, *, page_size: int) -> None:
        """Open the ledger on `store`; `page_size` is the maximum number of transfers on one page of `find`."""
        self.store = store
        self.page_size = page_size

    def has_key(self, key: str) -> bool:
        """Return whether this idempotency key already has a response."""
        found = self.store.connection.execute("SELECT 1 FROM keys WHERE key = ?", (key,)).fetchone()
        return found is not None

    def originate(self, key: str, request: TransferRequest, refuse_with: RefusalCode | None = None) -> BankResponse:
        """Move the money of one request, once per key; when this returns, the response is on disk.

        Returns 201 with the transfer, 200 with the first response, 409 if the key was used with another body, or 422.
        A refusal is stored with its key like any other response: it is final, and the same request is refused next
        week too. `refuse_with` refuses a request whose key is new.
        """
        digest = hmac.digest(self.store.digest_secret, request.model_dump_json().encode(), hashlib.sha256)
        connection = self.store.connection
        with self.store.transaction() as now:
            first = connection.execute("SELECT body_digest, status, answer FROM keys WHERE key = ?", (key,)).fetchone()
            if first is not None and not hmac.compare_digest(first["body_digest"], digest):
                message = "This Idempotency-Key was already used with a different body."
                return problem_response(409, "idempotency_key_reuse", message)
            if first is not None:
                return BankResponse(200 if first["status"] == 201 else first["status"], first["answer"])
            refusal = refuse_with or self._refusal(request)
            if refusal is None:
                response = BankResponse(201, self._insert(key, request, now))
            else:
                response = problem_response(422, refusal, REFUSALS[refusal])
            connection.execute(
                "INSERT INTO keys (key, body_digest, status, answer) VALUES (?, ?, ?, ?)",
                (key, digest, response.status, response.body),
            )
        return response

    def _refusal(self, request: TransferRequest) -> RefusalCode | None:
        if not has_valid_check_digit(request.counterparty.routing_number):
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

    def _insert(self, key: str, request: TransferRequest, now: int) -> bytes:
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
                now,
                now,
                request.funding_account_id,
                None if is_wire else now + self.store.settlement,
            ),
        ).fetchone()
        self.store.move_money(transfer, "out", "originated", now)
        return json.dumps(self._report([transfer])[0]).encode()

    def find(self, search: Search) -> BankResponse:
        """Return a page of transfers, oldest update first, and the cursor of the next page (null at the end)."""
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
        sql = f"SELECT * FROM transfers WHERE {where} ORDER BY updated_at, id LIMIT ?"  # noqa: S608 - our own conditions
        with self.store.transaction():
            found = self.store.connection.execute(sql, (*values, self.page_size + 1)).fetchall()
            reported = self._report(found[: self.page_size])
        page, more = found[: self.page_size], found[self.page_size :]
        last = Position(page[-1]["updated_at"], page[-1]["id"]) if more else None
        body = {
            "data": reported,
            "next_cursor": encode_cursor(last, search.filters) if last else None,
        }
        return BankResponse(200, json.dumps(body).encode())

    def transfer(self, transfer_id: str) -> BankResponse:
        """Return one transfer as it is now, or 404."""
        with self.store.transaction():
            row = self.store.connection.execute("SELECT * FROM transfers WHERE id = ?", (transfer_id,)).fetchone()
            if row is None:
                return problem_response(404, "not_found", "There is no transfer with this id.")
            (reported,) = self._report([row])
        return BankResponse(200, json.dumps(reported).encode())

    def account(self, account_id: str) -> BankResponse:
        """Return a funding account with its available balance in cents, or 404."""
        row = self.store.connection.execute(
            "SELECT id, available_cents, 'USD' AS currency FROM accounts WHERE id = ?", (account_id,)
        ).fetchone()
        if row is None:
            return problem_response(404, "not_found", "There is no account with this id.")
        return BankResponse(200, json.dumps(dict(row)).encode())

    def _report(self, rows: list[sqlite3.Row]) -> list[dict[str, object]]:
        """Return the transfers as clients get them: as they are, but for the fields that the bank misreports."""
        misreports: dict[str, dict[str, object]] = {
            reference: json.loads(fields)
            for reference, fields in self.store.connection.execute("SELECT reference, fields FROM misreports")
        }
        return [transfer_json(row) | misreports.get(row["reference"], {}) for row in rows]


def transfer_json(row: sqlite3.Row) -> dict[str, object]:
    """Return a row of `transfers` as the contract's Transfer."""
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
        "created_at": format_timestamp(row["created_at"]),
        "updated_at": format_timestamp(row["updated_at"]),
    }
