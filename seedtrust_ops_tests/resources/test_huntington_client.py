"""Every way in which a transfer's request can end is one answer, be it the sandbox bank's or a scripted one's."""

import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, get_args

import pytest

from seedtrust_ops.ports.bank import (
    Answer,
    BankStatus,
    BankUnauthorized,
    IdempotencyConflict,
    NotSent,
    Originated,
    OutcomeUnknown,
    RateLimited,
    Refused,
    TransferOrder,
    Unauthorized,
)
from seedtrust_ops.resources import http1_connection
from seedtrust_ops.resources.huntington_schema import LONGEST_WAIT_SECONDS
from seedtrust_ops.sandbox.bank.contract import RefusalCode
from seedtrust_ops.sandbox.bank.faults import FaultKind
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.resources.bank_calls import (
    ACCOUNT_NUMBER,
    IMPATIENT_SECONDS,
    LATE,
    NO_ANSWER,
    answer_to,
    ask,
    may_leave,
    order,
    settings_of,
)
from seedtrust_ops_tests.support.scripted_bank import PATIENT_SECONDS, Says, settings, transfer


def moved(bank: BankProcess, one: TransferOrder) -> int:
    return sum(seen["idempotency_key"] == one.idempotency_key for seen in bank.control.ledger()["movements"])


@pytest.mark.parametrize(("method", "status"), [("wire", BankStatus.COMPLETED), ("ach", BankStatus.ACCEPTED)])
def test_an_originated_transfer_is_what_the_bank_says_of_it(bank: BankProcess, method: str, status: BankStatus) -> None:
    one = order(method=method)
    first, again = (ask(settings_of(bank), lambda client: client.create_transfer(one, may_leave)) for _ in range(2))
    assert isinstance(first, Originated)
    assert first == again
    said = first.transfer
    assert (said.status, said.amount_cents, said.reference) == (status, 12_500, one.reference)
    assert said.updated_at.utcoffset() == timedelta(0)
    assert moved(bank, one) == 1


def test_a_key_that_the_bank_has_with_another_body_is_reused(bank: BankProcess) -> None:
    one = order()
    ask(settings_of(bank), lambda client: client.create_transfer(one, may_leave))
    another = order(idempotency_key=one.idempotency_key, amount_cents=1)
    assert ask(settings_of(bank), lambda client: client.create_transfer(another, may_leave)) == IdempotencyConflict()


@pytest.mark.parametrize(
    ("fault", "options", "answer", "moves"),
    [
        ("answer_late_before_commit", {"seconds": LATE}, NO_ANSWER, 0),
        ("answer_late_after_commit", {"seconds": LATE}, NO_ANSWER, 1),
        ("slow_drip", {"seconds": 0.2}, NO_ANSWER, 1),
        ("reset_before_commit", {}, OutcomeUnknown("the connection failed (ConnectionResetError)"), 0),
        ("reset_after_commit", {}, OutcomeUnknown("the connection failed (ConnectionResetError)"), 1),
        *[
            ("error_before_commit", {"status": code}, OutcomeUnknown(f"HTTP {code}"), 0)
            for code in (500, 502, 503, 504)
        ],
        *[("error_after_commit", {"status": code}, OutcomeUnknown(f"HTTP {code}"), 1) for code in (500, 502, 503, 504)],
        ("garbage", {}, OutcomeUnknown("the answer could not be read"), 1),
        ("rate_limited", {"seconds": 3}, RateLimited(3), 0),
        ("unauthorized", {}, Unauthorized(), 0),
        *[("refuse", {"code": code}, Refused(code, ""), 0) for code in get_args(RefusalCode)],
    ],
)
def test_every_fault_of_a_bank_is_one_answer_and_only_what_is_certain_is_called_so(
    bank: BankProcess, fault: FaultKind, options: dict[str, Any], answer: Answer, moves: int
) -> None:
    one = order()
    bank.control.order_fault(fault, idempotency_key=one.idempotency_key, **options)
    began = time.monotonic()
    where = settings_of(bank, timeout_seconds=IMPATIENT_SECONDS if answer is NO_ANSWER else PATIENT_SECONDS)
    got = ask(where, lambda client: client.create_transfer(one, may_leave))
    assert time.monotonic() - began < LATE
    if isinstance(got, Refused):
        got = Refused(got.code, "")
    assert got == answer
    assert moved(bank, one) == moves


def test_every_fault_that_the_sandbox_can_play_is_in_the_table() -> None:
    (table,) = [
        mark.args[1]
        for mark in test_every_fault_of_a_bank_is_one_answer_and_only_what_is_certain_is_called_so.pytestmark  # type: ignore[attr-defined]
    ]
    # Two concern what the bank says to others, and are played in `chaos/bank_worst_day`.
    assert {row[0] for row in table} | {"answer_of_another", "answered_twice"} == set(get_args(FaultKind))


def test_a_key_that_the_bank_does_not_know_is_not_the_transfer_s_fault(bank: BankProcess) -> None:
    wrong = settings_of(bank, api_key="another-key")
    one = order()
    assert ask(wrong, lambda client: client.create_transfer(one, may_leave)) == Unauthorized()
    with pytest.raises(BankUnauthorized, match="HUNTINGTON_API_KEY"):
        ask(wrong, lambda client: client.find_by_keys([one.idempotency_key]))


def test_where_nobody_listens_nothing_was_sent() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        where = settings(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_seconds=5)
        answer = ask(where, lambda client: client.create_transfer(order(), may_leave))
    assert isinstance(answer, NotSent)
    assert where.api_url in answer.reason


@pytest.mark.parametrize("host", ["bank..example", "x" * 64, "bank.invalid"])
def test_where_no_host_has_the_name_nothing_was_sent(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1_connection, "CONNECT_RETRIES", 0)
    answer = ask(
        settings(f"http://{host}", timeout_seconds=20), lambda client: client.create_transfer(order(), may_leave)
    )
    assert isinstance(answer, NotSent)


def test_a_bank_that_hangs_up_without_an_answer_may_have_the_transfer() -> None:
    assert isinstance(answer_to(order()), OutcomeUnknown)


@pytest.mark.parametrize("status", [202, 204, 301, 302, 307, 400, 403, 404, 405, 413, 418, 501, 505])
def test_a_status_that_the_contract_does_not_name_says_nothing_about_the_transfer(status: int) -> None:
    headers = {"Location": "http://127.0.0.1:9/elsewhere"} if 300 <= status < 400 else {}
    says = Says(status, b"" if status == 204 else {"code": "invalid_account", "message": "no"}, headers)
    assert answer_to(order(), says) == OutcomeUnknown(f"HTTP {status}")


@pytest.mark.parametrize("body", [b"", b"<html>blocked</html>", b"[]", b"{}", b'{"message": "no"}', b'{"code": 4}'])
def test_a_refusal_that_can_t_be_read_may_come_from_something_in_between_and_is_not_final(body: bytes) -> None:
    answer = answer_to(order(), Says(422, body))
    assert answer == OutcomeUnknown("HTTP 422 with an answer that could not be read")


@pytest.mark.parametrize(
    ("code", "read"),
    [("invalid_account", "invalid_account"), ("a_code_of_tomorrow", "a_code_of_tomorrow"), ("", "refused")]
    + [(odd, "refused") for odd in ("Invalid Account!", "x" * 65, f"account_{ACCOUNT_NUMBER}", "7300_5118_6423")],
)
def test_a_refusal_s_code_is_a_plain_word_or_refused(code: str, read: str) -> None:
    assert answer_to(order(), Says(422, {"code": code, "message": ""})) == Refused(read, "")


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
def test_a_good_status_with_a_body_that_can_t_be_read_leaves_the_outcome_unknown(body: Any) -> None:
    one = order()
    said = body if isinstance(body, bytes) else transfer(one.idempotency_key, **body)
    assert answer_to(one, Says(201, said)) == OutcomeUnknown("the answer could not be read")


def test_an_answer_about_another_key_is_no_answer() -> None:
    answer = answer_to(order(), Says(201, transfer("seedtrust-transaction-9")))
    assert answer == OutcomeUnknown("the answer was about another transfer")


def test_fields_that_the_contract_does_not_name_are_no_trouble() -> None:
    one = order()
    assert isinstance(answer_to(one, Says(201, transfer(one.idempotency_key, fee_cents=0))), Originated)


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
        ("99999999999999999999", LONGEST_WAIT_SECONDS),
        ("999999999", LONGEST_WAIT_SECONDS),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", 1),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0),
        ("Sun Nov  6 08:49:37 1994", 0),
    ],
)
def test_retry_after_is_read_as_a_number_or_a_date_and_garbage_is_a_second(
    retry_after: str | None, seconds: float
) -> None:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    assert answer_to(order(), Says(429, {"code": "rate_limited"}, headers)) == RateLimited(seconds)


@pytest.mark.parametrize("form", ["http date", "asctime"])
def test_retry_after_as_a_date_to_come_is_waited_for_until_then(form: str) -> None:
    then = datetime.now(UTC) + timedelta(seconds=60)
    text = format_datetime(then, usegmt=True) if form == "http date" else then.strftime("%a %b %d %H:%M:%S %Y")
    answer = answer_to(order(), Says(429, {}, {"Retry-After": text}))
    assert isinstance(answer, RateLimited)
    assert 50 < answer.retry_after_seconds <= 60
