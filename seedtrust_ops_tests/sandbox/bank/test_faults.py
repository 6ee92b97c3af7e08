"""Each fault is what it says it is, as a client meets it over a real socket, before or after the money moved."""

import json
import socket
import time
from urllib.parse import urlsplit

import httpx
import pytest

from seedtrust_ops.sandbox.bank.contract import RefusalCode
from seedtrust_ops.sandbox.bank.faults import FaultKind
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.sandbox.bank.bank_requests import body, client_of, fresh, movements, send
from seedtrust_ops_tests.support.waiters import wait_until


def raw_post(bank: BankProcess, key: str) -> socket.socket:
    """A socket on which a good POST was sent and nothing has been read yet."""
    address = urlsplit(bank.url)
    content = json.dumps(body()).encode()
    head = (
        "POST /v1/transfers HTTP/1.1\r\nHost: bank\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {bank.api_key}\r\nIdempotency-Key: {key}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    connection = socket.create_connection((address.hostname, address.port), timeout=60)
    connection.sendall(head.encode() + content)
    return connection


def test_an_answer_that_is_late_after_the_commit_leaves_money_moved_and_a_client_in_the_dark(
    bank: BankProcess,
) -> None:
    key = fresh("key")
    bank.control.order_fault("answer_late_after_commit", idempotency_key=key, seconds=30)
    with raw_post(bank, key) as connection:
        wait_until(lambda: len(movements(bank, key)) == 1, what="the commit")
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_a_late_commit_happens_although_the_client_has_hung_up(bank: BankProcess) -> None:
    key = fresh("key")
    bank.control.order_fault("answer_late_before_commit", method="POST", idempotency_key=key, seconds=5)
    with raw_post(bank, key):
        wait_until(lambda: any(one["idempotency_key"] == key for one in bank.control.requests()), what="the request")
    with client_of(bank) as client:
        assert client.get("/v1/transfers", params={"idempotency_key": key}).json()["data"] == []
    assert movements(bank, key) == []
    wait_until(lambda: len(movements(bank, key)) == 1, what="the commit")


@pytest.mark.parametrize(("kind", "moved"), [("reset_before_commit", 0), ("reset_after_commit", 1)])
def test_a_reset_is_a_real_one_with_not_a_byte_of_an_answer(bank: BankProcess, kind: FaultKind, moved: int) -> None:
    raw_key, key = fresh("key"), fresh("key")
    bank.control.order_fault(kind, times=2)
    with raw_post(bank, raw_key) as connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
    with client_of(bank) as client, pytest.raises(httpx.ReadError):
        send(client, body(), key)
    assert (len(movements(bank, raw_key)), len(movements(bank, key))) == (moved, moved)
    assert [seen["status"] for seen in bank.control.requests() if seen["idempotency_key"] == key] == [None]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize(("kind", "moved"), [("error_before_commit", 0), ("error_after_commit", 1)])
def test_an_error_says_nothing_of_whether_money_moved(
    bank: BankProcess, client: httpx.Client, kind: FaultKind, moved: int, status: int
) -> None:
    key = fresh("key")
    bank.control.order_fault(kind, status=status)
    answer = send(client, body(), key)
    assert answer.status_code == status
    assert set(answer.json()) == {"code", "message"}
    assert len(movements(bank, key)) == moved


def test_a_limited_rate_says_how_long_to_wait_and_moves_nothing(bank: BankProcess, client: httpx.Client) -> None:
    key, request = fresh("key"), body()
    bank.control.order_fault("rate_limited", seconds=2.5)
    answer = send(client, request, key)
    assert (answer.status_code, answer.json()["code"], answer.headers["Retry-After"]) == (
        429,
        "rate_limited",
        "3",
    )
    assert movements(bank, key) == []
    assert send(client, request, key).status_code == 201


def test_a_key_that_is_no_longer_valid_can_be_played(bank: BankProcess, client: httpx.Client) -> None:
    key = fresh("key")
    bank.control.order_fault("unauthorized")
    answer = send(client, body(), key)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert movements(bank, key) == []


def test_garbage_comes_with_a_good_status_after_the_money_moved(bank: BankProcess, client: httpx.Client) -> None:
    key, request = fresh("key"), body()
    bank.control.order_fault("garbage", times=2)
    for status in (201, 200):
        answer = send(client, request, key)
        assert answer.status_code == status
        with pytest.raises(ValueError):
            answer.json()
    assert len(movements(bank, key)) == 1


def test_a_dripping_answer_outlives_a_read_timeout_byte_by_byte(bank: BankProcess) -> None:
    key = fresh("key")
    bank.control.order_fault("slow_drip", seconds=0.015)
    started = time.monotonic()
    # No byte is so late as this, also where the machine stands still for a while; all of them together are.
    with client_of(bank, timeout_seconds=4) as client:
        answer = send(client, body(), key)
    assert (answer.status_code, answer.json()["idempotency_key"]) == (201, key)
    assert time.monotonic() - started > 4


def test_a_dripping_answer_starts_with_its_status_line_and_after_the_money_moved(bank: BankProcess) -> None:
    key = fresh("key")
    bank.control.order_fault("slow_drip", seconds=30)
    with raw_post(bank, key) as connection:
        assert connection.recv(100) == b"H"
        assert len(movements(bank, key)) == 1


@pytest.mark.parametrize("code", ["invalid_account", "invalid_amount", "insufficient_funds", "limit_exceeded"])
def test_a_refusal_can_be_ordered_and_is_final(bank: BankProcess, client: httpx.Client, code: RefusalCode) -> None:
    key, request = fresh("key"), body()
    bank.control.order_fault("refuse", code=code)
    for _ in range(2):
        answer = send(client, request, key)
        assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert movements(bank, key) == []


def test_an_ordered_refusal_never_takes_back_what_a_key_was_answered(bank: BankProcess, client: httpx.Client) -> None:
    key, request = fresh("key"), body()
    send(client, request, key)
    bank.control.order_fault("refuse")
    assert send(client, request, key).status_code == 200
    assert send(client, body()).status_code == 422


def test_an_order_meets_only_what_it_matches_and_only_so_often(bank: BankProcess, client: httpx.Client) -> None:
    reference = fresh()
    number = bank.control.order_fault("error_before_commit", reference=reference, method="POST", times=2)
    statuses = [send(client, body(reference=reference)).status_code for _ in range(3)]
    assert send(client, body()).status_code == 201
    assert client.get("/v1/transfers", params={"reference": reference}).status_code == 200
    assert statuses == [503, 503, 201]
    overview = bank.control.faults()
    assert [order["applied"] for order in overview["ordered"]] == [2]
    met = [(fault["kind"], fault["source"]) for fault in overview["applied"]]
    assert met == [("error_before_commit", f"order {number}")] * 2


def test_look_ups_meet_faults_too(bank: BankProcess, client: httpx.Client) -> None:
    key = fresh("key")
    bank.control.order_fault("error_before_commit", method="GET", idempotency_key=key, status=504)
    bank.control.order_fault("reset_before_commit", method="GET", idempotency_key=key)
    params = {"idempotency_key": [fresh("key"), key]}
    assert client.get("/v1/transfers", params=params).status_code == 504
    with pytest.raises(httpx.ReadError):
        client.get("/v1/transfers", params=params)
    assert client.get("/v1/transfers", params=params).status_code == 200


def test_an_outage_lasts_until_it_is_cleared(bank: BankProcess, client: httpx.Client) -> None:
    bank.control.order_fault("error_before_commit", times=None)
    assert {send(client, body()).status_code for _ in range(5)} == {503}
    assert client.get("/v1/accounts/acct_escrow").status_code == 503
    bank.control.clear_faults()
    assert send(client, body()).status_code == 201


def test_the_same_seed_brings_the_same_faults_in_whatever_order_requests_come(
    bank: BankProcess, client: httpx.Client
) -> None:
    requests = {fresh("key"): body() for _ in range(60)}

    def statuses(keys: list[str], seed: int) -> dict[str, list[int]]:
        bank.control.chaos(seed, {"error_after_commit": 0.3, "rate_limited": 0.2})
        # The first answers differ (201, then 200), what was met does not.
        return {key: [max(send(client, requests[key], key).status_code, 201) for _ in range(2)] for key in keys}

    forwards = statuses(list(requests), seed=7)
    assert statuses(list(reversed(requests)), seed=7) == forwards
    assert statuses(list(requests), seed=8) != forwards
    met = [status for answers in forwards.values() for status in answers]
    assert 10 < met.count(503) < 70
    assert 4 < met.count(429) < 50
    assert all(len(movements(bank, key)) <= 1 for key in requests)


def test_probabilities_beyond_certainty_are_refused(bank: BankProcess) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="more than 1"):
        bank.control.chaos(1, {"garbage": 0.6, "rate_limited": 0.6})


def test_answer_of_another_moves_money_and_tells_the_client_of_somebody_elses(
    bank: BankProcess, client: httpx.Client
) -> None:
    first, second = fresh("key"), fresh("key")
    told_first = send(client, body(), first).json()
    bank.control.order_fault("answer_of_another", idempotency_key=second)
    answer = send(client, body(), second)
    assert (answer.status_code, answer.json()) == (201, told_first)
    assert len(movements(bank, second)) == 1


def test_answer_that_comes_twice_leaves_one_on_the_connection_that_nobody_asked_for(
    bank: BankProcess, client: httpx.Client
) -> None:
    key = fresh("key")
    told_before = send(client, body(), fresh("key")).text
    bank.control.order_fault("answered_twice", idempotency_key=key)
    with raw_post(bank, key) as connection:
        received = b""
        while received.count(b"HTTP/1.1 201") < 2 or not received.endswith(b"}"):
            received += connection.recv(65_536)
    assert received.decode().endswith(told_before)
    assert len(movements(bank, key)) == 1


@pytest.mark.parametrize("text", ["-5", "999999999", "soon", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_too_many_requests_can_bear_any_retry_after_or_none(bank: BankProcess, client: httpx.Client, text: str) -> None:
    bank.control.order_fault("rate_limited", retry_after=text)
    bank.control.order_fault("rate_limited", retry_after="")
    assert send(client, body(), fresh("key")).headers["Retry-After"] == text
    assert "Retry-After" not in send(client, body(), fresh("key")).headers
