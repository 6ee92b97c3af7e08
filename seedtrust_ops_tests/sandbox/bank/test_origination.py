"""POST /v1/transfers keeps the contract: one transfer per key, strict validation, final refusals."""

import asyncio
import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from seedtrust_ops.sandbox.bank.control_client import NO_CERTIFICATES
from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops_tests.sandbox.bank.bank_requests import (
    ACCOUNT_NUMBER,
    API_KEY,
    available_cents,
    body,
    client_for,
    client_with,
    create_transfer,
    movements,
    send,
    transfers,
    unique,
)


def test_ach_is_accepted_and_wire_completes_at_once(client: httpx.Client) -> None:
    assert create_transfer(client, method="ach")["status"] == "accepted"
    assert create_transfer(client, method="wire")["status"] == "completed"


def test_transfer_lowers_the_funding_account_by_its_cents(client: httpx.Client) -> None:
    before = available_cents(client)
    create_transfer(client, amount_cents=12_345)
    assert available_cents(client) == before - 12_345


def test_repeated_request_gets_first_response_and_moves_money_once(bank: BankProcess, client: httpx.Client) -> None:
    key, request = unique("key"), body()
    first = send(client, request, key)
    bank.control.return_transfer(first.json()["id"], "R01")
    second = send(client, request, key)
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json() == first.json()
    assert [movement["direction"] for movement in movements(bank, key)] == ["out", "back"]


def test_bodies_are_compared_by_content_not_by_bytes(client: httpx.Client) -> None:
    key, request = unique("key"), body(amount_cents=500)
    assert send(client, request, key).status_code == 201
    reordered = json.dumps({name: request[name] for name in reversed(request)}, indent=3).replace("500", "500.0")
    headers = {"Idempotency-Key": key, "Content-Type": "application/json; charset=utf-8"}
    assert client.post("/v1/transfers", content=reordered, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"amount_cents": 125_001},
        {"method": "wire"},
        {"reference": "another"},
        {"counterparty__account_number": "730051186424"},
        {"counterparty__account_type": "savings"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_reused_key_with_another_body_moves_nothing(
    bank: BankProcess, client: httpx.Client, change: dict[str, Any]
) -> None:
    key, request = unique("key"), body()
    send(client, request, key)
    other = body(**{"reference": request["reference"], **change})
    response = send(client, other, key)
    assert (response.status_code, response.json()["code"]) == (409, "idempotency_key_reuse")
    assert len(movements(bank, key)) == 1


def test_concurrent_identical_requests_move_money_once(database: Path) -> None:
    async def send_concurrently(bank: BankProcess, keys: list[str], request: dict[str, Any]) -> list[httpx.Response]:
        headers = {"Authorization": f"Bearer {API_KEY}"}
        async with httpx.AsyncClient(
            base_url=bank.url, headers=headers, timeout=60, trust_env=False, verify=NO_CERTIFICATES
        ) as client:
            posts = (
                client.post("/v1/transfers", json=request, headers={"Idempotency-Key": key})
                for key in keys
                for _ in range(20)
            )
            return await asyncio.gather(*posts)

    keys = [unique("key") for _ in range(3)]
    with start_bank(database, api_key=API_KEY, latency_ms=20) as bank:
        responses = asyncio.run(send_concurrently(bank, keys, body()))
        assert sorted(response.status_code for response in responses) == [200] * 57 + [201] * 3
        assert len({response.json()["id"] for response in responses}) == 3
        assert [len(movements(bank, key)) for key in keys] == [1, 1, 1]
        assert bank.control.totals()["out_cents"] == 3 * 125_000


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"amount_cents": 0}, "invalid_amount"),
        ({"amount_cents": 10_000_000_000}, "invalid_amount"),
        ({"amount_cents": True}, "invalid_amount"),
        ({"amount_cents": "100"}, "invalid_amount"),
        ({"amount_cents": 100.5}, "invalid_amount"),
        ({"currency": "EUR"}, "invalid_amount"),
        ({"method": "card"}, "invalid_account"),
        ({"reference": "x" * 36}, "invalid_account"),
        ({"memo": "unknown field"}, "invalid_account"),
        ({"funding_account_id": "acct_unknown"}, "invalid_account"),
        ({"counterparty": None}, "invalid_account"),
        ({"counterparty__name": ""}, "invalid_account"),
        ({"counterparty__name": "x" * 36}, "invalid_account"),
        ({"counterparty__routing_number": "044000025"}, "invalid_account"),
        ({"counterparty__routing_number": "04400002"}, "invalid_account"),
        ({"counterparty__routing_number": "04400002٤"}, "invalid_account"),
        ({"counterparty__account_number": "123"}, "invalid_account"),
        ({"counterparty__account_number": "123456\n"}, "invalid_account"),
        ({"counterparty__account_type": "brokerage"}, "invalid_account"),
        ({"counterparty__bic": "HUNTUS33"}, "invalid_account"),
    ],
    ids=str,
)
def test_invalid_body_is_refused_with_a_contract_code(
    bank: BankProcess, client: httpx.Client, change: dict[str, Any], code: str
) -> None:
    key = unique("key")
    response = send(client, body(**change), key)
    assert (response.status_code, response.json()["code"]) == (422, code)
    assert movements(bank, key) == []


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"null", b'{"method": "\\ud800"}', b"\xff"], ids=repr)
def test_body_that_is_not_a_json_object_is_refused(client: httpx.Client, content: bytes) -> None:
    headers = {"Idempotency-Key": unique("key"), "Content-Type": "application/json"}
    response = client.post("/v1/transfers", content=content, headers=headers)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_account")


@pytest.mark.parametrize("key", [None, "", "x" * 15, "x" * 65])
def test_missing_short_or_long_key_is_refused(client: httpx.Client, key: str | None) -> None:
    headers = {} if key is None else {"Idempotency-Key": key}
    response = client.post("/v1/transfers", json=body(), headers=headers)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_account")
    assert "Idempotency-Key" in response.json()["message"]


@pytest.mark.parametrize("key", ["x" * 16, "y" * 64])
def test_keys_of_16_and_64_characters_are_accepted(client: httpx.Client, key: str) -> None:
    assert send(client, body(), key).status_code == 201


@pytest.mark.parametrize(
    ("number", "code"),
    [
        ("4220000001", "invalid_account"),
        ("4220000002", "invalid_amount"),
        ("4220000003", "insufficient_funds"),
        ("4220000004", "limit_exceeded"),
    ],
)
def test_reserved_account_numbers_are_always_refused(
    bank: BankProcess, client: httpx.Client, number: str, code: str
) -> None:
    key, request = unique("key"), body(counterparty__account_number=number)
    for _ in range(2):
        response = send(client, request, key)
        assert (response.status_code, response.json()["code"]) == (422, code)
    assert movements(bank, key) == []
    assert client.get("/v1/transfers", params={"idempotency_key": key}).json()["data"] == []


def test_insufficient_funds_stays_final_after_a_refund(database: Path) -> None:
    with start_bank(database, api_key=API_KEY, available_cents=1_000) as bank, client_for(bank) as client:
        first = create_transfer(client, amount_cents=600)
        key, request = unique("key"), body(amount_cents=500)
        assert send(client, request, key).json()["code"] == "insufficient_funds"
        bank.control.return_transfer(first["id"])
        assert available_cents(client) == 1_000
        assert send(client, request, key).status_code == 422
        assert send(client, request).status_code == 201


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer wrong", f"Basic {API_KEY}", API_KEY])
@pytest.mark.parametrize("path", ["/v1/transfers", "/v1/transfers/tr_x", "/v1/accounts/acct_escrow", "/v1/other"])
def test_v1_requests_without_a_valid_key_get_401(bank: BankProcess, path: str, authorization: str | None) -> None:
    with client_with(bank, authorization) as unauthorized_client:
        response = unauthorized_client.get(path)
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")


def test_unauthorized_post_moves_nothing(bank: BankProcess) -> None:
    key = unique("key")
    with client_with(bank, None) as unauthorized_client:
        assert send(unauthorized_client, body(), key).status_code == 401
    assert transfers(bank, key) == []


def test_account_numbers_are_in_no_response_file_or_log(database: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with start_bank(database, api_key=API_KEY) as bank, client_for(bank) as client:
        bodies = [body(), body(amount_cents=0), body(**{ACCOUNT_NUMBER: 1}), body(counterparty__name=None)]
        responses = [send(client, request) for request in bodies]
        responses += [client.get(f"/sandbox/{page}") for page in ("ledger", "requests", "faults", "totals")]
        files = {file.name: file.read_bytes() for file in database.parent.iterdir()}
    assert not any(ACCOUNT_NUMBER in response.text for response in responses)
    assert set(files) >= {"bank.sqlite", "bank.sqlite-wal"}
    assert not any(ACCOUNT_NUMBER.encode() in content for content in files.values())
    assert ACCOUNT_NUMBER not in "".join(capfd.readouterr())


def test_incomplete_request_is_ignored(database: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with start_bank(database, api_key=API_KEY) as bank:
        address = urlsplit(bank.url)
        head = (
            "POST /v1/transfers HTTP/1.1\r\nHost: bank\r\nContent-Type: application/json\r\nContent-Length: 300\r\n"
            f"Authorization: Bearer {API_KEY}\r\nIdempotency-Key: {unique('key')}\r\n\r\n"
        )
        with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
            connection.sendall(head.encode() + b'{"method": "ach", ')
        assert bank.control.totals()["transfers"] == 0
    assert capfd.readouterr().err == ""
