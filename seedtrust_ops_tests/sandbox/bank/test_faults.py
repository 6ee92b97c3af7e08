"""Each injected fault behaves as documented for a client on a real socket, before or after the money moved."""

import json
import socket
import time
from urllib.parse import urlsplit

import httpx
import pytest

from seedtrust_ops.sandbox.bank.contract import RefusalCode
from seedtrust_ops.sandbox.bank.faults import FaultKind
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.sandbox.bank.bank_requests import body, client_for, movements, send, unique
from seedtrust_ops_tests.support.waiters import wait_until


def raw_post(bank: BankProcess, key: str) -> socket.socket:
    """A socket on which a valid POST was sent and nothing has been read yet."""
    address = urlsplit(bank.url)
    content = json.dumps(body()).encode()
    head = (
        "POST /v1/transfers HTTP/1.1\r\nHost: bank\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {bank.api_key}\r\nIdempotency-Key: {key}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    connection = socket.create_connection((address.hostname, address.port), timeout=60)
    connection.sendall(head.encode() + content)
    return connection


def test_late_response_after_commit_has_moved_money(
    bank: BankProcess,
) -> None:
    key = unique("key")
    bank.control.inject_fault("late_response_after_commit", idempotency_key=key, seconds=30)
    with raw_post(bank, key) as connection:
        wait_until(lambda: len(movements(bank, key)) == 1, what="the commit")
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_late_commit_happens_after_the_client_disconnects(bank: BankProcess) -> None:
    key = unique("key")
    bank.control.inject_fault("late_response_before_commit", method="POST", idempotency_key=key, seconds=5)
    with raw_post(bank, key):
        wait_until(
            lambda: any(logged["idempotency_key"] == key for logged in bank.control.requests()), what="the request"
        )
    with client_for(bank) as client:
        assert client.get("/v1/transfers", params={"idempotency_key": key}).json()["data"] == []
    assert movements(bank, key) == []
    wait_until(lambda: len(movements(bank, key)) == 1, what="the commit")


@pytest.mark.parametrize(("kind", "moved"), [("reset_before_commit", 0), ("reset_after_commit", 1)])
def test_reset_closes_the_socket_without_a_single_byte(bank: BankProcess, kind: FaultKind, moved: int) -> None:
    raw_key, key = unique("key"), unique("key")
    bank.control.inject_fault(kind, times=2)
    with raw_post(bank, raw_key) as connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
    with client_for(bank) as client, pytest.raises(httpx.ReadError):
        send(client, body(), key)
    assert (len(movements(bank, raw_key)), len(movements(bank, key))) == (moved, moved)
    assert [logged["status"] for logged in bank.control.requests() if logged["idempotency_key"] == key] == [None]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize(("kind", "moved"), [("error_before_commit", 0), ("error_after_commit", 1)])
def test_server_error_can_come_before_or_after_money_moved(
    bank: BankProcess, client: httpx.Client, kind: FaultKind, moved: int, status: int
) -> None:
    key = unique("key")
    bank.control.inject_fault(kind, status=status)
    response = send(client, body(), key)
    assert response.status_code == status
    assert set(response.json()) == {"code", "message"}
    assert len(movements(bank, key)) == moved


def test_rate_limit_has_retry_after_and_moves_nothing(bank: BankProcess, client: httpx.Client) -> None:
    key, request = unique("key"), body()
    bank.control.inject_fault("rate_limited", seconds=2.5)
    response = send(client, request, key)
    assert (response.status_code, response.json()["code"], response.headers["Retry-After"]) == (
        429,
        "rate_limited",
        "3",
    )
    assert movements(bank, key) == []
    assert send(client, request, key).status_code == 201


def test_unauthorized_fault_rejects_a_valid_api_key(bank: BankProcess, client: httpx.Client) -> None:
    key = unique("key")
    bank.control.inject_fault("unauthorized")
    response = send(client, body(), key)
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    assert movements(bank, key) == []


def test_garbage_has_a_success_status_after_money_moved(bank: BankProcess, client: httpx.Client) -> None:
    key, request = unique("key"), body()
    bank.control.inject_fault("garbage", times=2)
    for status in (201, 200):
        response = send(client, request, key)
        assert response.status_code == status
        with pytest.raises(ValueError):
            response.json()
    assert len(movements(bank, key)) == 1


def test_slow_drip_never_triggers_the_read_timeout(bank: BankProcess) -> None:
    key = unique("key")
    bank.control.inject_fault("slow_drip", seconds=0.015)
    started = time.monotonic()
    # No single byte takes this long, even on a busy machine, but all of them together do.
    with client_for(bank, timeout_seconds=4) as client:
        response = send(client, body(), key)
    assert (response.status_code, response.json()["idempotency_key"]) == (201, key)
    assert time.monotonic() - started > 4


def test_slow_drip_starts_after_money_moved(bank: BankProcess) -> None:
    key = unique("key")
    bank.control.inject_fault("slow_drip", seconds=30)
    with raw_post(bank, key) as connection:
        assert connection.recv(100) == b"H"
        assert len(movements(bank, key)) == 1


@pytest.mark.parametrize("code", ["invalid_account", "invalid_amount", "insufficient_funds", "limit_exceeded"])
def test_injected_refusal_is_final(bank: BankProcess, client: httpx.Client, code: RefusalCode) -> None:
    key, request = unique("key"), body()
    bank.control.inject_fault("refuse", code=code)
    for _ in range(2):
        response = send(client, request, key)
        assert (response.status_code, response.json()["code"]) == (422, code)
    assert movements(bank, key) == []


def test_injected_refusal_does_not_change_an_earlier_response(bank: BankProcess, client: httpx.Client) -> None:
    key, request = unique("key"), body()
    send(client, request, key)
    bank.control.inject_fault("refuse")
    assert send(client, request, key).status_code == 200
    assert send(client, body()).status_code == 422


def test_fault_applies_only_to_matches_and_only_n_times(bank: BankProcess, client: httpx.Client) -> None:
    reference = unique()
    number = bank.control.inject_fault("error_before_commit", reference=reference, method="POST", times=2)
    statuses = [send(client, body(reference=reference)).status_code for _ in range(3)]
    assert send(client, body()).status_code == 201
    assert client.get("/v1/transfers", params={"reference": reference}).status_code == 200
    assert statuses == [503, 503, 201]
    overview = bank.control.faults()
    assert [fault["applied"] for fault in overview["injected"]] == [2]
    applied = [(fault["kind"], fault["source"]) for fault in overview["applied"]]
    assert applied == [("error_before_commit", f"fault {number}")] * 2


def test_lookups_get_faults_too(bank: BankProcess, client: httpx.Client) -> None:
    key = unique("key")
    bank.control.inject_fault("error_before_commit", method="GET", idempotency_key=key, status=504)
    bank.control.inject_fault("reset_before_commit", method="GET", idempotency_key=key)
    params = {"idempotency_key": [unique("key"), key]}
    assert client.get("/v1/transfers", params=params).status_code == 504
    with pytest.raises(httpx.ReadError):
        client.get("/v1/transfers", params=params)
    assert client.get("/v1/transfers", params=params).status_code == 200


def test_outage_lasts_until_it_is_cleared(bank: BankProcess, client: httpx.Client) -> None:
    bank.control.inject_fault("error_before_commit", times=None)
    assert {send(client, body()).status_code for _ in range(5)} == {503}
    assert client.get("/v1/accounts/acct_escrow").status_code == 503
    bank.control.clear_faults()
    assert send(client, body()).status_code == 201


def test_chaos_depends_on_the_seed_not_on_request_order(bank: BankProcess, client: httpx.Client) -> None:
    requests = {unique("key"): body() for _ in range(60)}

    def statuses(keys: list[str], seed: int) -> dict[str, list[int]]:
        bank.control.start_chaos(seed, {"error_after_commit": 0.3, "rate_limited": 0.2})
        # The first response is 201 and the second 200, so both count as 201; faults do not differ.
        return {key: [max(send(client, requests[key], key).status_code, 201) for _ in range(2)] for key in keys}

    forwards = statuses(list(requests), seed=7)
    assert statuses(list(reversed(requests)), seed=7) == forwards
    assert statuses(list(requests), seed=8) != forwards
    all_statuses = [status for statuses in forwards.values() for status in statuses]
    assert 10 < all_statuses.count(503) < 70
    assert 4 < all_statuses.count(429) < 50
    assert all(len(movements(bank, key)) <= 1 for key in requests)


def test_probabilities_above_1_are_refused(bank: BankProcess) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="more than 1"):
        bank.control.start_chaos(1, {"garbage": 0.6, "rate_limited": 0.6})


def test_swapped_response_moves_money_but_shows_another_transfer(bank: BankProcess, client: httpx.Client) -> None:
    first, second = unique("key"), unique("key")
    first_response = send(client, body(), first).json()
    bank.control.inject_fault("swapped_response", idempotency_key=second)
    response = send(client, body(), second)
    assert (response.status_code, response.json()) == (201, first_response)
    assert len(movements(bank, second)) == 1


def test_duplicate_response_leaves_an_extra_one_on_the_connection(bank: BankProcess, client: httpx.Client) -> None:
    key = unique("key")
    earlier_response = send(client, body(), unique("key")).text
    bank.control.inject_fault("duplicate_response", idempotency_key=key)
    with raw_post(bank, key) as connection:
        received = b""
        while received.count(b"HTTP/1.1 201") < 2 or not received.endswith(b"}"):
            received += connection.recv(65_536)
    assert received.decode().endswith(earlier_response)
    assert len(movements(bank, key)) == 1


@pytest.mark.parametrize("text", ["-5", "999999999", "soon", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_rate_limit_can_have_any_retry_after_or_none(bank: BankProcess, client: httpx.Client, text: str) -> None:
    bank.control.inject_fault("rate_limited", retry_after=text)
    bank.control.inject_fault("rate_limited", retry_after="")
    assert send(client, body(), unique("key")).headers["Retry-After"] == text
    assert "Retry-After" not in send(client, body(), unique("key")).headers


def test_fault_can_be_limited_to_one_path_or_reference(bank: BankProcess, client: httpx.Client) -> None:
    undeliverable, key = body(), unique("key")
    bank.control.inject_fault("error_before_commit", times=None, path="/v1/accounts/acct_escrow")
    bank.control.inject_fault("error_before_commit", times=None, reference=undeliverable["reference"], status=500)
    assert {send(client, undeliverable, key).status_code for _ in range(7)} == {500}
    assert client.get("/v1/accounts/acct_escrow").status_code == 503
    assert client.get("/v1/transfers", params={"idempotency_key": key}).json()["data"] == []
    assert send(client, body()).status_code == 201
