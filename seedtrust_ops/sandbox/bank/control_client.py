"""A Python client for the sandbox bank's control endpoints, for tests and the demo.

It is not the client that moves money: that one speaks bank_api.yaml and knows nothing of /sandbox.
"""

import ssl
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self, TypedDict

import httpx

from seedtrust_ops.sandbox.bank.admin_actions import Status
from seedtrust_ops.sandbox.bank.contract import RefusalCode
from seedtrust_ops.sandbox.bank.faults import FaultKind, Method

# A bank on loopback speaks no TLS: with no certificates to load, a client is made in 1 ms where it would take 100.
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Transfer(TypedDict):
    """A transfer as the contract shows it, and whether it was planted; moments are UTC ISO 8601."""

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
    planted: bool


class Movement(TypedDict):
    """Money moved once: 'out' of the funding account or 'back' into it.

    The cause is originated, planted, rejected or returned.
    """

    id: int
    at: str
    transfer_id: str
    idempotency_key: str
    reference: str
    direction: str
    amount_cents: int
    cause: str


class Books(TypedDict):
    """Everything in the ledger."""

    transfers: list[Transfer]
    movements: list[Movement]


class SeenRequest(TypedDict):
    """One /v1 request; key and reference are null for none or several of them, status for no answer."""

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
    """A fault that a request met; its source is 'order <number>' or 'chaos'."""

    kind: str
    source: str
    method: str
    path: str
    keys: list[str]
    references: list[str]
    amount_cents: int | None


class FaultOverview(TypedDict):
    """Orders with how often each was applied, the chaos, and what was met, oldest first."""

    ordered: list[dict[str, Any]]
    chaos: dict[str, Any] | None
    applied: list[AppliedFault]


class StatusTotal(TypedDict):
    """How many transfers have a status, and their cents."""

    transfers: int
    cents: int


class AccountTotal(TypedDict):
    """A funding account's cents at the start and now."""

    id: str
    opening_cents: int
    available_cents: int


class Totals(TypedDict):
    """Sums over the ledger; both lists of what was paid more than once should be empty, always."""

    transfers: int
    by_status: dict[str, StatusTotal]
    out_cents: int
    back_cents: int
    accounts: list[AccountTotal]
    keys_paid_more_than_once: list[str]
    references_paid_more_than_once: list[str]


class SandboxBank:
    """The control side of the bank at `url`. A refusal is an httpx.HTTPStatusError that quotes it."""

    def __init__(self, url: str) -> None:
        self.url = url
        # The environment's proxies are for the outside world, and this bank is on loopback.
        self._client = httpx.Client(base_url=url, timeout=30.0, trust_env=False, verify=NO_CERTIFICATES)

    def __enter__(self) -> Self:
        """`with SandboxBank(url) as bank:` closes its connections at the end."""
        return self

    def __exit__(self, *_raised: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections to the bank; the bank goes on."""
        self._client.close()

    def wait_until_healthy(self, timeout_seconds: float) -> None:
        """Wait for the bank's first answer; raises httpx.HTTPError where it takes longer than `timeout_seconds`."""
        self._client.get("/healthz", timeout=timeout_seconds).raise_for_status()

    def order_fault(
        self,
        kind: FaultKind,
        *,
        times: int | None = 1,
        method: Method | None = None,
        idempotency_key: str | None = None,
        reference: str | None = None,
        amount_cents: int | None = None,
        seconds: float = 1.0,
        status: int = 503,
        code: RefusalCode = "insufficient_funds",
        retry_after: str | None = None,
    ) -> int:
        """Order a fault for the next `times` matching requests (None: until cleared); returns its number.

        `seconds` is how late, the pause after each dripped byte, or Retry-After; `status` is what error_*
        answers; `code` is what `refuse` answers; `retry_after` is the header's text where `seconds` is not it.
        """
        match = {
            "method": method,
            "idempotency_key": idempotency_key,
            "reference": reference,
            "amount_cents": amount_cents,
        }
        options = {"seconds": seconds, "status": status, "code": code, "retry_after": retry_after}
        ordered = self._post("/sandbox/faults", {"kind": kind, "times": times, "match": match, **options})
        return int(ordered["number"])

    def chaos(
        self,
        seed: int,
        probabilities: dict[FaultKind, float],
        *,
        methods: Sequence[Method] = ("POST", "GET"),
        seconds: float = 1.0,
        status: int = 503,
        code: RefusalCode = "insufficient_funds",
    ) -> None:
        """Let every request meet a fault by probability, decided by the seed and the request alone."""
        wanted = {"seed": seed, "probabilities": probabilities, "methods": list(methods)}
        self._post("/sandbox/chaos", {**wanted, "seconds": seconds, "status": status, "code": code})

    def faults(self) -> FaultOverview:
        """What was ordered and what was met since the last clear_faults()."""
        overview: FaultOverview = self._get("/sandbox/faults")
        return overview

    def clear_faults(self) -> None:
        """End all orders and the chaos, and forget what was met."""
        _body(self._client.delete("/sandbox/faults"))

    def plant_transfer(
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
        """Enter a transfer that our client did not make, e.g. the legacy worker's; `created_at` is aware."""
        planted: Transfer = self._post(
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
        return planted

    def return_transfer(self, transfer_id: str, return_code: str = "R01") -> None:
        """Send an accepted or completed ACH back."""
        self._post(f"/sandbox/transfers/{transfer_id}/return", {"return_code": return_code})

    def return_reference(self, reference: str, return_code: str = "R01") -> None:
        """Send the one ACH back that bears this reference."""
        self._post(f"/sandbox/references/{reference}/return", {"return_code": return_code})

    def reject_transfer(self, transfer_id: str, reason: str) -> None:
        """Stop an accepted transfer before it settles."""
        self._post(f"/sandbox/transfers/{transfer_id}/reject", {"reason": reason})

    def reject_reference(self, reference: str, reason: str) -> None:
        """Stop the one accepted transfer that bears this reference."""
        self._post(f"/sandbox/references/{reference}/reject", {"reason": reason})

    def settle(self) -> int:
        """Settle every accepted transfer now; returns how many there were."""
        return int(self._post("/sandbox/settle", {})["settled"])

    def set_clock(self, offset_seconds: float) -> None:
        """Put the bank's clock this far ahead of the machine's; it only goes forward."""
        self._post("/sandbox/clock", {"offset_seconds": offset_seconds})

    def forget(self, idempotency_key: str) -> None:
        """Make the bank lose a key; its transfer stays, under a key that nobody chose."""
        self._post("/sandbox/forget", {"idempotency_key": idempotency_key})

    def back_up(self, name: str) -> None:
        """Keep a copy of the bank's books as they are now."""
        self._post("/sandbox/backups", {"name": name})

    def restore(self, name: str) -> None:
        """Put the bank's books back to a copy; its journals keep what was done since, for it was done."""
        self._post(f"/sandbox/backups/{name}/restore", {})

    def ledger(self) -> Books:
        """All transfers and all movements of money, oldest first."""
        books: Books = self._get("/sandbox/ledger")
        return books

    def requests(self) -> list[SeenRequest]:
        """Every /v1 request that the bank received, oldest first, from before a restart too."""
        seen: list[SeenRequest] = self._get("/sandbox/requests")["requests"]
        return seen

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
        message = f"The sandbox bank refused a control call. {response.text}"
        raise httpx.HTTPStatusError(message, request=response.request, response=response)
    return response.json()
