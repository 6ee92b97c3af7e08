"""The bank client maps every outcome of a transfer request to one response, against sandbox and scripted banks."""

import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, get_args

import pytest

from seedtrust_ops.ports.bank import (
    BankStatus,
    BankUnauthorized,
    IdempotencyConflict,
    NotSent,
    Originated,
    OutcomeUnknown,
    RateLimited,
    Refused,
    TransferOrder,
    TransferResponse,
    Unauthorized,
)
from seedtrust_ops.resources import http1_connection
from seedtrust_ops.resources.huntington_schema import MAX_RETRY_AFTER_SECONDS
from seedtrust_ops.sandbox.bank.contract import RefusalCode
from seedtrust_ops.sandbox.bank.faults import FaultKind
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.resources.bank_calls import (
    ACCOUNT_NUMBER,
    LATE_SECONDS,
    NO_RESPONSE,
    SHORT_TIMEOUT_SECONDS,
    make_order,
    may_send,
    response_to,
    run_with_client,
    settings_of,
)
from seedtrust_ops_tests.support.scripted_bank import LONG_TIMEOUT_SECONDS, ScriptedResponse, settings, transfer


def movement_count(bank: BankProcess, order: TransferOrder) -> int:
    return sum(seen["idempotency_key"] == order.idempotency_key for seen in bank.control.ledger()["movements"])


@pytest.mark.parametrize(("method", "status"), [("wire", BankStatus.COMPLETED), ("ach", BankStatus.ACCEPTED)])
def test_originated_transfer_has_the_banks_values(bank: BankProcess, method: str, status: BankStatus) -> None:
    order = make_order(method=method)
    first, again = (
        run_with_client(settings_of(bank), lambda client: client.create_transfer(order, may_send)) for _ in range(2)
    )
    assert isinstance(first, Originated)
    assert first == again
    created = first.transfer
    assert (created.status, created.amount_cents, created.reference) == (status, 12_500, order.reference)
    assert created.updated_at.utcoffset() == timedelta(0)
    assert movement_count(bank, order) == 1


def test_key_with_a_different_body_is_an_idempotency_conflict(bank: BankProcess) -> None:
    order = make_order()
    run_with_client(settings_of(bank), lambda client: client.create_transfer(order, may_send))
    another = make_order(idempotency_key=order.idempotency_key, amount_cents=1)
    assert (
        run_with_client(settings_of(bank), lambda client: client.create_transfer(another, may_send))
        == IdempotencyConflict()
    )


@pytest.mark.parametrize(
    ("fault", "options", "expected", "moves"),
    [
        ("late_response_before_commit", {"seconds": LATE_SECONDS}, NO_RESPONSE, 0),
        ("late_response_after_commit", {"seconds": LATE_SECONDS}, NO_RESPONSE, 1),
        ("slow_drip", {"seconds": 0.2}, NO_RESPONSE, 1),
        ("reset_before_commit", {}, OutcomeUnknown("the connection failed (ConnectionResetError)"), 0),
        ("reset_after_commit", {}, OutcomeUnknown("the connection failed (ConnectionResetError)"), 1),
        *[
            ("error_before_commit", {"status": code}, OutcomeUnknown(f"HTTP {code}"), 0)
            for code in (500, 502, 503, 504)
        ],
        *[("error_after_commit", {"status": code}, OutcomeUnknown(f"HTTP {code}"), 1) for code in (500, 502, 503, 504)],
        ("garbage", {}, OutcomeUnknown("the response could not be parsed"), 1),
        ("rate_limited", {"seconds": 3}, RateLimited(3), 0),
        ("unauthorized", {}, Unauthorized(), 0),
        ("in_progress", {}, OutcomeUnknown("HTTP 409: a request with this key is still in progress"), 0),
        *[("refuse", {"code": code}, Refused(code, ""), 0) for code in get_args(RefusalCode)],
    ],
)
def test_every_bank_fault_maps_to_one_response(
    bank: BankProcess, fault: FaultKind, options: dict[str, Any], expected: TransferResponse, moves: int
) -> None:
    order = make_order()
    bank.control.inject_fault(fault, idempotency_key=order.idempotency_key, **options)
    began = time.monotonic()
    bank_settings = settings_of(
        bank, timeout_seconds=SHORT_TIMEOUT_SECONDS if expected is NO_RESPONSE else LONG_TIMEOUT_SECONDS
    )
    response = run_with_client(bank_settings, lambda client: client.create_transfer(order, may_send))
    assert time.monotonic() - began < LATE_SECONDS
    if isinstance(response, Refused):
        response = Refused(response.code, "")
    assert response == expected
    assert movement_count(bank, order) == moves


def test_every_sandbox_fault_is_in_the_table() -> None:
    (table,) = [
        mark.args[1]
        for mark in test_every_bank_fault_maps_to_one_response.pytestmark  # type: ignore[attr-defined]
    ]
    # Two more affect responses to other requests (`chaos/bank_faults`), and one only lookups (`test_evidence`).
    others = {"swapped_response", "duplicate_response", "lagging_lookup"}
    assert {row[0] for row in table} | others == set(get_args(FaultKind))


def test_unknown_api_key_is_unauthorized(bank: BankProcess) -> None:
    wrong = settings_of(bank, api_key="another-key")
    order = make_order()
    assert run_with_client(wrong, lambda client: client.create_transfer(order, may_send)) == Unauthorized()
    with pytest.raises(BankUnauthorized, match="HUNTINGTON_API_KEY"):
        run_with_client(wrong, lambda client: client.find_by_keys([order.idempotency_key]))


def test_closed_port_counts_as_not_sent() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        bank_settings = settings(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_seconds=5)
        response = run_with_client(bank_settings, lambda client: client.create_transfer(make_order(), may_send))
    assert isinstance(response, NotSent)
    assert bank_settings.api_url in response.reason


def test_unresolvable_host_counts_as_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1_connection, "CONNECT_RETRIES", 0)
    response = run_with_client(
        settings("http://bank.invalid", timeout_seconds=20),
        lambda client: client.create_transfer(make_order(), may_send),
    )
    assert isinstance(response, NotSent)


def test_connection_closed_without_a_response_is_an_unknown_outcome() -> None:
    assert isinstance(response_to(make_order()), OutcomeUnknown)


@pytest.mark.parametrize("status", [202, 204, 301, 302, 307, 400, 403, 404, 405, 413, 418, 501, 505])
def test_http_status_outside_the_contract_is_an_unknown_outcome(status: int) -> None:
    headers = {"Location": "http://127.0.0.1:9/elsewhere"} if 300 <= status < 400 else {}
    scripted = ScriptedResponse(status, b"" if status == 204 else {"code": "invalid_account", "message": "no"}, headers)
    assert response_to(make_order(), scripted) == OutcomeUnknown(f"HTTP {status}")


@pytest.mark.parametrize("body", [b"", b"<html>blocked</html>", b"[]", b"{}", b'{"message": "no"}', b'{"code": 4}'])
def test_refusal_that_cannot_be_parsed_is_not_final(body: bytes) -> None:
    response = response_to(make_order(), ScriptedResponse(422, body))
    assert response == OutcomeUnknown("HTTP 422 with a response that could not be parsed")


@pytest.mark.parametrize(
    ("code", "expected"),
    [("invalid_account", "invalid_account"), ("a_code_of_tomorrow", "a_code_of_tomorrow"), ("", "refused")]
    + [(odd, "refused") for odd in ("Invalid Account!", "x" * 65, f"account_{ACCOUNT_NUMBER}", "7300_5118_6423")],
)
def test_refusal_code_is_a_plain_word_or_refused(code: str, expected: str) -> None:
    assert response_to(make_order(), ScriptedResponse(422, {"code": code, "message": ""})) == Refused(expected, "")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"OK",
        b'{"id": "tr_1"}',
        {"status": "settling"},
        {"amount_cents": "a lot"},
        {"amount_cents": 2**63},
        {"updated_at": "2024-03-01T12:00:00"},
        {"id": "tr_1\x00"},
        {"id": ""},
        {"id": None},
    ],
)
def test_success_status_with_an_unreadable_body_is_an_unknown_outcome(body: Any) -> None:
    order = make_order()
    content = body if isinstance(body, bytes) else transfer(order.idempotency_key, **body)
    assert response_to(order, ScriptedResponse(201, content)) == OutcomeUnknown("the response could not be parsed")


def test_response_for_another_key_is_an_unknown_outcome() -> None:
    response = response_to(make_order(), ScriptedResponse(201, transfer("seedtrust-transaction-9")))
    assert response == OutcomeUnknown("the response was for another transfer")


def test_fields_outside_the_contract_are_ignored() -> None:
    order = make_order()
    assert isinstance(
        response_to(order, ScriptedResponse(201, transfer(order.idempotency_key, fee_cents=0))), Originated
    )


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        ("2.5", 2.5),
        (" 3 ", 3),
        (None, 1),
        ("", 1),
        ("soon", 1),
        ("-5", 1),
        ("inf", 1),
        ("nan", 1),
        ("1e9", 1),
        ("99999999999999999999", MAX_RETRY_AFTER_SECONDS),
        ("999999999", MAX_RETRY_AFTER_SECONDS),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", 1),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0),
        ("Sun Nov  6 08:49:37 1994", 0),
    ],
)
def test_retry_after_is_a_number_or_a_date_and_garbage_is_one_second(retry_after: str | None, seconds: float) -> None:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    assert response_to(make_order(), ScriptedResponse(429, {"code": "rate_limited"}, headers)) == RateLimited(seconds)


@pytest.mark.parametrize("form", ["http date", "asctime"])
def test_retry_after_as_a_future_date_is_the_seconds_until_then(form: str) -> None:
    then = datetime.now(UTC) + timedelta(seconds=60)
    text = format_datetime(then, usegmt=True) if form == "http date" else then.strftime("%a %b %d %H:%M:%S %Y")
    response = response_to(make_order(), ScriptedResponse(429, {}, {"Retry-After": text}))
    assert isinstance(response, RateLimited)
    assert 50 < response.retry_after_seconds <= 60
