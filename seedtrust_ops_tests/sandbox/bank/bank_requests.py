"""Helpers that send requests to the sandbox bank: bodies, unique keys and references, a client with the API key.

They use plain httpx on purpose: the bank is tested against its contract, not with production's client.
"""

import secrets
from typing import Any

import httpx

from seedtrust_ops.sandbox.bank.control_client import NO_CERTIFICATES, Movement, Transfer
from seedtrust_ops.sandbox.bank.process import BankProcess

API_KEY = "a-key-for-the-sandbox"
ACCOUNT_NUMBER = "730051186423"
ROUTING_NUMBER = "044000024"


def client_for(bank: BankProcess, *, timeout_seconds: float = 60.0) -> httpx.Client:
    return client_with(bank, f"Bearer {bank.api_key}", timeout_seconds=timeout_seconds)


def client_with(bank: BankProcess, authorization: str | None, *, timeout_seconds: float = 60.0) -> httpx.Client:
    """A client that sends this Authorization header, or none if it is None."""
    headers = {} if authorization is None else {"Authorization": authorization}
    return httpx.Client(
        base_url=bank.url, headers=headers, timeout=timeout_seconds, trust_env=False, verify=NO_CERTIFICATES
    )


def unique(prefix: str = "txn") -> str:
    return f"{prefix}-{secrets.token_hex(10)}"


def body(**changes: Any) -> dict[str, Any]:
    """A valid request; `counterparty__x=...` changes a field of the counterparty."""
    counterparty = {
        "name": "Ada Example",
        "routing_number": ROUTING_NUMBER,
        "account_number": ACCOUNT_NUMBER,
        "account_type": "checking",
    }
    request: dict[str, Any] = {
        "method": "ach",
        "amount_cents": 125_000,
        "currency": "USD",
        "funding_account_id": "acct_escrow",
        "counterparty": counterparty,
        "reference": unique(),
    }
    for name, value in changes.items():
        outer, _, inner = name.partition("__")
        (counterparty if inner else request)[inner or outer] = value
    return request


def send(client: httpx.Client, request: dict[str, Any], key: str | None = None) -> httpx.Response:
    return client.post("/v1/transfers", json=request, headers={"Idempotency-Key": key or unique("key")})


def create_transfer(client: httpx.Client, **changes: Any) -> dict[str, Any]:
    """Originate a transfer and return the bank's response."""
    response = send(client, body(**changes))
    assert response.status_code == 201, response.text
    transfer: dict[str, Any] = response.json()
    return transfer


def movements(bank: BankProcess, key: str) -> list[Movement]:
    return [movement for movement in bank.control.ledger()["movements"] if movement["idempotency_key"] == key]


def transfers(bank: BankProcess, key: str) -> list[Transfer]:
    return [transfer for transfer in bank.control.ledger()["transfers"] if transfer["idempotency_key"] == key]


def available_cents(client: httpx.Client) -> int:
    return int(client.get("/v1/accounts/acct_escrow").json()["available_cents"])
