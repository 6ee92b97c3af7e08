"""A Python client for the sandbox bank's control endpoints, for tests and the demo.

It does not send transfers: production's client does that through bank_api.yaml and never calls /sandbox.
"""

import secrets
import ssl
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Self, TypedDict

import httpx

from seedtrust_ops.sandbox.bank.admin_actions import Status
from seedtrust_ops.sandbox.bank.contract import RefusalCode
from seedtrust_ops.sandbox.bank.faults import FaultKind, Method

# The bank on loopback does not use TLS. Without certificates to load, a client is created in 1 ms instead of 100 ms.
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


ODD_ROWS: dict[str, dict[str, object]] = {
    "unknown status": {"status": "under_review"},
    "no status": {"status": None},
    "no key": {"idempotency_key": None},
    "no reference": {"reference": None},
    "no id": {"id": None},
    "update without time zone": {"updated_at": "2026-11-30T09:00:00"},
    "creation without time zone": {"created_at": "2026-11-30T09:00:00"},
    "year 20260": {"updated_at": "20260-11-30T09:00:00Z"},
    "absurd amount": {"amount_cents": 10**30},
    "negative amount": {"amount_cents": -1},
    "amount as text": {"amount_cents": "1.00"},
    "amount as a truth value": {"amount_cents": True},
    "amount with a fraction": {"amount_cents": 1.5},
    "euros": {"currency": "EUR"},
    "no currency": {"currency": None},
    "unknown method": {"method": "cheque"},
}
"""Fields for `misreport`, by what is odd about them; each breaks the contract."""


class Transfer(TypedDict):
    """A transfer as the contract defines it, and whether it was inserted directly; timestamps are UTC ISO 8601."""

    id: str
    idempotency_key: str
    status: str
    return_code: str | None
    reason: str | None
    method: str
    amount_cents: int
    currency: str
    reference: str
    created_at: str
    updated_at: str
    inserted: bool


class Movement(TypedDict):
    """One movement of money: 'out' of the funding account or 'back' into it.

    The cause is originated, inserted, rejected, returned or dishonored.
    """

    id: int
    at: str
    transfer_id: str
    idempotency_key: str
    reference: str
    direction: str
    amount_cents: int
    cause: str


class LedgerSnapshot(TypedDict):
    """All transfers and movements in the ledger."""

    transfers: list[Transfer]
    movements: list[Movement]


class LoggedRequest(TypedDict):
    """One /v1 request; key and reference are null unless there was exactly one, status is null without a response."""

    id: int
    at: str
    method: str
    path: str
    query: str
    idempotency_key: str | None
    reference: str | None
    amount_cents: int | None
    fault: str | None
    status: int | None


class AppliedFault(TypedDict):
    """A fault that a request got; its source is 'fault <number>' or 'chaos'."""

    kind: str
    source: str
    method: str
    path: str
    keys: list[str]
    references: list[str]
    amount_cents: int | None


class FaultOverview(TypedDict):
    """Injected faults with how often each was applied, the chaos settings, and every applied fault, oldest first."""

    injected: list[dict[str, Any]]
    chaos: dict[str, Any] | None
    applied: list[AppliedFault]


class StatusTotal(TypedDict):
    """The number of transfers with one status, and the sum of their cents."""

    transfers: int
    cents: int


class AccountTotal(TypedDict):
    """A funding account's opening and current balance in cents."""

    id: str
    opening_cents: int
    available_cents: int


class Totals(TypedDict):
    """Sums over the ledger; both paid-more-than-once lists must always be empty."""

    transfers: int
    by_status: dict[str, StatusTotal]
    out_cents: int
    back_cents: int
    accounts: list[AccountTotal]
    keys_paid_more_than_once: list[str]
    references_paid_more_than_once: list[str]


class SandboxBank:
    """Client of the control endpoints of the bank at `url`. An error is an httpx.HTTPStatusError with its message."""

    def __init__(self, url: str) -> None:
        self.url = url
        # This bank is on loopback, so proxies in the environment do not apply.
        self._client = httpx.Client(base_url=url, timeout=30.0, trust_env=False, verify=NO_CERTIFICATES)

    def __enter__(self) -> Self:
        """Use it in a `with` block to close its connections at the end."""
        return self

    def __exit__(self, *_raised: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close this client's connections; the bank keeps running."""
        self._client.close()

    def wait_until_healthy(self, timeout_seconds: float) -> None:
        """Wait for the bank to respond; raises httpx.HTTPError if that takes longer than `timeout_seconds`."""
        self._client.get("/healthz", timeout=timeout_seconds).raise_for_status()

    def inject_fault(
        self,
        kind: FaultKind,
        *,
        times: int | None = 1,
        method: Method | None = None,
        path: str | None = None,
        idempotency_key: str | None = None,
        reference: str | None = None,
        amount_cents: int | None = None,
        seconds: float = 1.0,
        status: int = 503,
        code: RefusalCode = "insufficient_funds",
        retry_after: str | None = None,
    ) -> int:
        """Inject a fault for the next `times` matching requests (None: until cleared); returns its number.

        Args:
            kind: which fault.
            times: how many requests get it.
            method, path, idempotency_key, reference, amount_cents: which requests match; None matches all. A lookup
                by key has no reference.
            seconds: the delay, the pause after each byte of `slow_drip`, or Retry-After.
            status: the HTTP status of error_*.
            code: the 422 code of `refuse`.
            retry_after: the text of the Retry-After header, if it is not `seconds`.
        """
        match = {
            "method": method,
            "path": path,
            "idempotency_key": idempotency_key,
            "reference": reference,
            "amount_cents": amount_cents,
        }
        options = {"seconds": seconds, "status": status, "code": code, "retry_after": retry_after}
        injected = self._post("/sandbox/faults", {"kind": kind, "times": times, "match": match, **options})
        return int(injected["number"])

    def start_chaos(
        self,
        seed: int,
        probabilities: dict[FaultKind, float],
        *,
        methods: Sequence[Method] = ("POST", "GET"),
        seconds: float = 1.0,
        status: int = 503,
        code: RefusalCode = "insufficient_funds",
    ) -> None:
        """Inject faults at random, by probability; the seed and the request alone decide which request gets which."""
        chaos = {"seed": seed, "probabilities": probabilities, "methods": list(methods)}
        self._post("/sandbox/chaos", {**chaos, "seconds": seconds, "status": status, "code": code})

    def faults(self) -> FaultOverview:
        """The injected and the applied faults since the last `clear_faults`."""
        overview: FaultOverview = self._get("/sandbox/faults")
        return overview

    def clear_faults(self) -> None:
        """Remove all injected faults, the chaos and the misreports, and clear the list of applied faults."""
        _body(self._client.delete("/sandbox/faults"))

    def insert_transfer(
        self,
        reference: str,
        amount_cents: int,
        *,
        idempotency_key: str | None = None,
        method: str = "ach",
        status: Status = "completed",
        return_code: str | None = None,
        reason: str | None = None,
        created_at: datetime | None = None,
    ) -> Transfer:
        """Insert a transfer that our client did not send, for example the legacy worker's.

        `created_at` is timezone-aware; None for now.
        """
        inserted: Transfer = self._post(
            "/sandbox/transfers",
            {
                "reference": reference,
                "amount_cents": amount_cents,
                "idempotency_key": idempotency_key,
                "method": method,
                "status": status,
                "return_code": return_code,
                "reason": reason,
                "created_at": created_at.isoformat() if created_at else None,
            },
        )
        return inserted

    def add_unknown_transfer(
        self,
        reference: str = "another customer's invoice 2231",
        amount_cents: int = 4_999_900,
        *,
        method: str = "wire",
        status: Status = "completed",
    ) -> Transfer:
        """Insert a transfer that nobody at SeedTrust made; a number that no transaction has is a reference, too."""
        return self.insert_transfer(
            reference, amount_cents, idempotency_key=f"unknown-{secrets.token_hex(12)}", method=method, status=status
        )

    def misreport(self, reference: str, fields: Mapping[str, object]) -> None:
        """Report transfers with this reference, present and future, with these fields (such as one of `ODD_ROWS`).

        The ledger keeps the truth, and so does `ledger()`. A request that was answered before keeps its answer.
        """
        self._post(f"/sandbox/references/{reference}/misreport", {"fields": dict(fields)})

    def report_truly(self, reference: str) -> None:
        """End `misreport` for this reference."""
        self.misreport(reference, {})

    def set_available_cents(self, available_cents: int) -> None:
        """Fund or drain the funding account; a transfer above what is available is refused: insufficient_funds."""
        self._post("/sandbox/funds", {"available_cents": available_cents})

    def return_transfer(self, transfer_id: str, return_code: str = "R01") -> None:
        """Return an accepted or completed ACH."""
        self._post(f"/sandbox/transfers/{transfer_id}/return", {"return_code": return_code})

    def return_reference(self, reference: str, return_code: str = "R01") -> None:
        """Return the one ACH with this reference."""
        self._post(f"/sandbox/references/{reference}/return", {"return_code": return_code})

    def reject_transfer(self, transfer_id: str, reason: str) -> None:
        """Reject an accepted transfer before it settles."""
        self._post(f"/sandbox/transfers/{transfer_id}/reject", {"reason": reason})

    def reject_reference(self, reference: str, reason: str) -> None:
        """Reject the one accepted transfer with this reference."""
        self._post(f"/sandbox/references/{reference}/reject", {"reason": reason})

    def dishonor_reference(self, reference: str) -> None:
        """Dishonor the return of the one returned ACH with this reference: it is completed again."""
        self._post(f"/sandbox/references/{reference}/dishonor", {})

    def settle(self) -> int:
        """Complete every accepted transfer now; returns how many there were."""
        return int(self._post("/sandbox/settle", {})["settled"])

    def set_clock(self, offset_seconds: float) -> None:
        """Set the bank's clock this many seconds ahead of the machine's; it can only move forward."""
        self._post("/sandbox/clock", {"offset_seconds": offset_seconds})

    def forget_key(self, idempotency_key: str) -> None:
        """Make the bank lose an idempotency key; its transfer stays, under a generated key."""
        self._post("/sandbox/forget-key", {"idempotency_key": idempotency_key})

    def back_up(self, name: str) -> None:
        """Copy the bank's books as they are now."""
        self._post("/sandbox/backups", {"name": name})

    def restore(self, name: str) -> None:
        """Restore the bank's books from a copy; the journals keep what happened since, because it did happen."""
        self._post(f"/sandbox/backups/{name}/restore", {})

    def ledger(self) -> LedgerSnapshot:
        """All transfers and all movements of money, oldest first."""
        snapshot: LedgerSnapshot = self._get("/sandbox/ledger")
        return snapshot

    def requests(self) -> list[LoggedRequest]:
        """Every /v1 request that the bank received, oldest first, including those before a restart."""
        requests: list[LoggedRequest] = self._get("/sandbox/requests")["requests"]
        return requests

    def totals(self) -> Totals:
        """Sums over the ledger."""
        totals: Totals = self._get("/sandbox/totals")
        return totals

    def _post(self, path: str, body: dict[str, object]) -> Any:
        return _body(self._client.post(path, json=body))

    def _get(self, path: str) -> Any:
        return _body(self._client.get(path))


def _body(response: httpx.Response) -> Any:
    if response.is_error:
        message = f"The sandbox bank rejected a control request: {response.text}"
        raise httpx.HTTPStatusError(message, request=response.request, response=response)
    return response.json()
