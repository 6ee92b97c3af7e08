"""POST /v1/transfers keeps the contract: once for each key, strict about bodies, final about refusals."""

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
    client_of,
    client_with,
    fresh,
    movements,
    send,
    sent,
    transfers,
)


def test_an_ach_is_accepted_and_a_wire_is_completed_at_once(client: httpx.Client) -> None:
    assert sent(client, method="ach")["status"] == "accepted"
    assert sent(client, method="wire")["status"] == "completed"


def test_a_transfer_lowers_the_funding_account_by_its_cents(client: httpx.Client) -> None:
    before = available_cents(client)
    sent(client, amount_cents=12_345)
    assert available_cents(client) == before - 12_345


def test_the_same_key_and_body_get_the_first_answer_and_move_money_once(
    bank: BankProcess, client: httpx.Client
) -> None:
    key, request = fresh("key"), body()
    first = send(client, request, key)
    bank.control.return_transfer(first.json()["id"], "R01")
    second = send(client, request, key)
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json() == first.json()
    assert [movement["direction"] for movement in movements(bank, key)] == ["out", "back"]


def test_bodies_are_compared_by_what_they_say_and_not_by_their_bytes(client: httpx.Client) -> None:
    key, request = fresh("key"), body(amount_cents=500)
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
def test_the_same_key_with_another_body_is_refused_and_moves_nothing(
    bank: BankProcess, client: httpx.Client, change: dict[str, Any]
) -> None:
    key, request = fresh("key"), body()
    send(client, request, key)
    other = body(**{"reference": request["reference"], **change})
    answer = send(client, other, key)
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_reuse")
    assert len(movements(bank, key)) == 1


def test_many_identical_requests_at_once_move_money_once(database: Path) -> None:
    async def all_at_once(bank: BankProcess, keys: list[str], request: dict[str, Any]) -> list[httpx.Response]:
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

    keys = [fresh("key") for _ in range(3)]
    with start_bank(database, api_key=API_KEY, latency_ms=20) as bank:
        answers = asyncio.run(all_at_once(bank, keys, body()))
        assert sorted(answer.status_code for answer in answers) == [200] * 57 + [201] * 3
        assert len({answer.json()["id"] for answer in answers}) == 3
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
        ({"memo": "surprise"}, "invalid_account"),
        ({"funding_account_id": "acct_of_nobody"}, "invalid_account"),
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
def test_a_body_outside_the_schema_is_refused_with_a_code_of_the_contract(
    bank: BankProcess, client: httpx.Client, change: dict[str, Any], code: str
) -> None:
    key = fresh("key")
    answer = send(client, body(**change), key)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert movements(bank, key) == []


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"null", b'{"method": "\\ud800"}', b"\xff"], ids=repr)
def test_a_body_that_is_no_json_object_is_refused(client: httpx.Client, content: bytes) -> None:
    headers = {"Idempotency-Key": fresh("key"), "Content-Type": "application/json"}
    answer = client.post("/v1/transfers", content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_account")


@pytest.mark.parametrize("key", [None, "", "x" * 15, "x" * 65])
def test_a_key_that_is_missing_too_short_or_too_long_is_refused(client: httpx.Client, key: str | None) -> None:
    headers = {} if key is None else {"Idempotency-Key": key}
    answer = client.post("/v1/transfers", json=body(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_account")
    assert "Idempotency-Key" in answer.json()["message"]


@pytest.mark.parametrize("key", ["x" * 16, "y" * 64])
def test_keys_of_16_and_of_64_characters_are_taken(client: httpx.Client, key: str) -> None:
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
def test_there_is_a_counterparty_for_each_refusal(
    bank: BankProcess, client: httpx.Client, number: str, code: str
) -> None:
    key, request = fresh("key"), body(counterparty__account_number=number)
    for _ in range(2):
        answer = send(client, request, key)
        assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert movements(bank, key) == []
    assert client.get("/v1/transfers", params={"idempotency_key": key}).json()["data"] == []


def test_a_refusal_for_want_of_funds_is_final_even_when_money_comes_back(database: Path) -> None:
    with start_bank(database, api_key=API_KEY, available_cents=1_000) as bank, client_of(bank) as client:
        first = sent(client, amount_cents=600)
        key, request = fresh("key"), body(amount_cents=500)
        assert send(client, request, key).json()["code"] == "insufficient_funds"
        bank.control.return_transfer(first["id"])
        assert available_cents(client) == 1_000
        assert send(client, request, key).status_code == 422
        assert send(client, request).status_code == 201


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer wrong", f"Basic {API_KEY}", API_KEY])
@pytest.mark.parametrize("path", ["/v1/transfers", "/v1/transfers/tr_x", "/v1/accounts/acct_escrow", "/v1/other"])
def test_nothing_under_v1_answers_without_the_key(bank: BankProcess, path: str, authorization: str | None) -> None:
    with client_with(bank, authorization) as stranger:
        answer = stranger.get(path)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


def test_a_post_without_the_key_moves_nothing(bank: BankProcess) -> None:
    key = fresh("key")
    with client_with(bank, None) as stranger:
        assert send(stranger, body(), key).status_code == 401
    assert transfers(bank, key) == []


def test_an_account_number_is_in_no_answer_in_no_file_and_in_no_log(
    database: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with start_bank(database, api_key=API_KEY) as bank, client_of(bank) as client:
        bodies = [body(), body(amount_cents=0), body(**{ACCOUNT_NUMBER: 1}), body(counterparty__name=None)]
        answers = [send(client, request) for request in bodies]
        answers += [client.get(f"/sandbox/{page}") for page in ("ledger", "requests", "faults", "totals")]
        files = {file.name: file.read_bytes() for file in database.parent.iterdir()}
    assert not any(ACCOUNT_NUMBER in answer.text for answer in answers)
    assert set(files) >= {"bank.sqlite", "bank.sqlite-wal"}
    assert not any(ACCOUNT_NUMBER.encode() in content for content in files.values())
    assert ACCOUNT_NUMBER not in "".join(capfd.readouterr())


def test_a_client_that_dies_in_the_middle_of_its_request_has_asked_for_nothing(
    database: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with start_bank(database, api_key=API_KEY) as bank:
        address = urlsplit(bank.url)
        head = (
            "POST /v1/transfers HTTP/1.1\r\nHost: bank\r\nContent-Type: application/json\r\nContent-Length: 300\r\n"
            f"Authorization: Bearer {API_KEY}\r\nIdempotency-Key: {fresh('key')}\r\n\r\n"
        )
        with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
            connection.sendall(head.encode() + b'{"method": "ach", ')
        assert bank.control.totals()["transfers"] == 0
    assert capfd.readouterr().err == ""
