"""The bank's client turns every way in which a request can end into one answer, and shows no account number.

Faults are the sandbox bank's own; what that bank would never say comes from a scripted one on a real socket.
"""

import asyncio
import json
import secrets
import socket
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, TypeVar, get_args

import pytest

from seedtrust_ops.bank import (
    AccountNumber,
    Answer,
    BankGaveNoAnswer,
    BankStatus,
    BankTransfer,
    BankUnauthorized,
    KeyReused,
    NotSent,
    Originated,
    OutcomeUnknown,
    RateLimited,
    Refused,
    TransferOrder,
    Unauthorized,
)
from seedtrust_ops.config import HuntingtonSettings
from seedtrust_ops.resources import bank_connection
from seedtrust_ops.resources.bank_connection import BankConnection, BankRequest, BankResponse
from seedtrust_ops.resources.huntington_bank import QUESTION_TRIES, HuntingtonBank, open_huntington_bank
from seedtrust_ops.resources.huntington_wire import LONGEST_WAIT_SECONDS, without_numbers
from seedtrust_ops.sandbox.bank.contract import RefusalCode
from seedtrust_ops.sandbox.bank.faults import FaultKind
from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops_tests.resources.scripted_bank import (
    API_KEY,
    PATIENT_SECONDS,
    Says,
    ScriptedBank,
    bank_that_says,
    page,
    read_request,
    settings,
    transfer,
    write_answer,
)

ACCOUNT_NUMBER = "730051186423"
IMPATIENT_SECONDS = 4.0
"""How long an answer is waited for that comes late on purpose; longer than a busy machine stands still."""
LATE = 30.0
"""How many seconds late such an answer is at least: an exchange that ended sooner did not wait for it."""
Result = TypeVar("Result")


def order(**changes: Any) -> TransferOrder:
    sound = {
        "idempotency_key": f"seedtrust-test-{secrets.token_hex(8)}",
        "method": "wire",
        "amount_cents": 12_500,
        "funding_account_id": "acct_escrow",
        "payee_name": "Dana Whitfield",
        "routing_number": "044000024",
        "account_number": AccountNumber(ACCOUNT_NUMBER),
        "account_type": "checking",
        "reference": secrets.token_hex(6),
    }
    return TransferOrder(**(sound | changes))


def may_leave() -> bool:
    """Nobody calls the request back."""
    return True


def settings_of(bank: BankProcess, **changes: Any) -> HuntingtonSettings:
    return settings(bank.url, **({"api_key": bank.api_key} | changes))


def ask(where: HuntingtonSettings, question: Callable[[HuntingtonBank], Awaitable[Result]]) -> Result:
    """Ask the bank at `where`, on an event loop of the question's own."""

    async def asking() -> Result:
        async with open_huntington_bank(where) as bank:
            return await question(bank)

    return asyncio.run(asking())


def ask_scripted(
    question: Callable[[ScriptedBank], Awaitable[Result]], *answers: Says, timeout_seconds: float = PATIENT_SECONDS
) -> Result:
    async def asking() -> Result:
        async with bank_that_says(*answers, timeout_seconds=timeout_seconds) as bank:
            return await question(bank)

    return asyncio.run(asking())


def answer_to(one: TransferOrder, *answers: Says) -> Answer:
    return ask_scripted(lambda bank: bank.client.create_transfer(one, may_leave), *answers)


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
    assert ask(settings_of(bank), lambda client: client.create_transfer(another, may_leave)) == KeyReused()


NO_ANSWER = OutcomeUnknown(f"no answer within {IMPATIENT_SECONDS:g} seconds")


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
    monkeypatch.setattr(bank_connection, "CONNECT_RETRIES", 0)
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
        ("99999999999999999999", 1),
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


def test_a_request_that_is_called_back_before_it_leaves_is_not_sent() -> None:
    async def called_back(scripted: ScriptedBank) -> tuple[Answer, Answer, list[str]]:
        called = await scripted.client.create_transfer(order(), lambda: False)
        sent = await scripted.client.create_transfer(order(), may_leave)
        return called, sent, [asked.line for asked in scripted.asked]

    called, sent, asked = ask_scripted(called_back, Says(422, {"code": "invalid_account"}))
    assert called == NotSent("it was called back before it left")
    assert sent == Refused("invalid_account", "")
    assert asked == ["POST /v1/transfers HTTP/1.1"]


def test_what_comes_unasked_is_no_answer_to_the_next_request(bank: BankProcess) -> None:
    before, one, next_one = order(), order(), order()
    bank.control.order_fault("refuse", idempotency_key=before.idempotency_key)
    bank.control.order_fault("answered_twice", idempotency_key=one.idempotency_key)

    async def three(client: HuntingtonBank) -> list[Answer]:
        return [await client.create_transfer(each, may_leave) for each in (before, one, next_one)]

    refused, *others = ask(settings_of(bank), three)
    assert isinstance(refused, Refused)
    assert [isinstance(answer, Originated) for answer in others] == [True, True]


def test_a_connection_that_the_bank_closed_meanwhile_is_not_used_again() -> None:
    one, next_one = order(), order()
    closing = {"Connection": "close"}

    async def two(scripted: ScriptedBank) -> list[Answer]:
        return [await scripted.client.create_transfer(each, may_leave) for each in (one, next_one)]

    says = [Says(201, transfer(each.idempotency_key), closing) for each in (one, next_one)]
    assert all(isinstance(answer, Originated) for answer in ask_scripted(two, *says))


@pytest.mark.parametrize("dripping", ["headers", "body"])
def test_an_answer_that_drips_ends_within_the_whole_time_and_the_connection_serves_again(
    bank: BankProcess, dripping: str
) -> None:
    one, next_one = order(), order()

    async def both(client: HuntingtonBank) -> tuple[Answer, float, Answer]:
        began = time.monotonic()
        first = await client.create_transfer(one, may_leave)
        took = time.monotonic() - began
        return first, took, await client.create_transfer(next_one, may_leave)

    if dripping == "headers":
        bank.control.order_fault("slow_drip", idempotency_key=one.idempotency_key, seconds=0.2)
        first, took, second = ask(settings_of(bank, timeout_seconds=IMPATIENT_SECONDS), both)
    else:
        slow = Says(201, transfer(one.idempotency_key), pause_seconds=0.2)
        first, took, second = ask_scripted(
            lambda scripted: both(scripted.client),
            *(slow, Says(201, transfer(next_one.idempotency_key))),
            timeout_seconds=IMPATIENT_SECONDS,
        )
    assert first == NO_ANSWER
    assert took < LATE
    assert isinstance(second, Originated)


def test_the_request_is_what_the_contract_says_and_nothing_more() -> None:
    one = order()

    async def sent(scripted: ScriptedBank) -> Any:
        await scripted.client.create_transfer(one, may_leave)
        return scripted.asked

    (asked,) = ask_scripted(sent, Says(201, transfer(one.idempotency_key)))
    assert asked.line == "POST /v1/transfers HTTP/1.1"
    assert asked.headers["authorization"] == f"Bearer {API_KEY}"
    assert asked.headers["idempotency-key"] == one.idempotency_key
    assert asked.headers["content-type"] == "application/json"
    assert json.loads(asked.body) == {
        "method": "wire",
        "amount_cents": 12_500,
        "currency": "USD",
        "funding_account_id": "acct_escrow",
        "counterparty": {
            "name": "Dana Whitfield",
            "routing_number": "044000024",
            "account_number": ACCOUNT_NUMBER,
            "account_type": "checking",
        },
        "reference": one.reference,
    }


def test_no_proxy_of_the_environment_comes_between_us_and_the_bank(
    monkeypatch: pytest.MonkeyPatch, bank: BankProcess
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert isinstance(ask(settings_of(bank), lambda client: client.create_transfer(order(), may_leave)), Originated)


def test_our_key_is_masked_where_the_bank_quotes_it() -> None:
    one = order()
    refusal = answer_to(one, Says(422, {"code": API_KEY.replace("-", "_"), "message": f"key {API_KEY} is old"}))
    rejected = answer_to(one, Says(201, transfer(one.idempotency_key, status="rejected", reason=f"by {API_KEY}")))
    assert refusal == Refused("refused", "key ••• is old")
    assert isinstance(rejected, Originated)
    assert rejected.transfer.reason == "by •••"


QUOTATIONS = [
    ACCOUNT_NUMBER,
    f"account {ACCOUNT_NUMBER} is closed",
    "account 7300-5118-6423",
    "account 7300 5118 6423",
    "account 730.051.186.423",
    "account 730, 051, 186, 423",
    "account 730_051_186_423",
    "account 7 3 0 0 5 1 1 8 6 4 2 3",
    "account 7300\n5118\t6423",
    "account \x007300\x0051186423",
    "account 6423",
]


@pytest.mark.parametrize("text", QUOTATIONS)
@pytest.mark.parametrize("where", ["message", "reason", "return_code"])
def test_an_account_number_that_the_bank_quotes_is_masked(text: str, where: str) -> None:
    one = order()
    if where == "message":
        says = Says(422, {"code": "invalid_account", "message": text})
    else:
        says = Says(201, transfer(one.idempotency_key, status="rejected", **{where: text}))
    shown = repr(answer_to(one, says)).replace(one.reference, "").replace(one.idempotency_key, "").replace("12500", "")
    assert isinstance(answer_to(one, says), Refused | Originated)
    digits = "".join(character for character in shown.partition("updated_at")[0] if character.isdigit())
    assert ACCOUNT_NUMBER not in digits
    assert "6423" not in digits
    assert "\\x00" not in shown


def test_what_is_no_number_stays_readable() -> None:
    assert without_numbers("R01: 3 of 12 tries; closed on the 4th") == "R01: 3 of 12 tries; closed on the 4th"


@pytest.mark.parametrize("number", ["1234", "12345", ACCOUNT_NUMBER, "1" * 17])
def test_an_account_number_shows_at_most_its_last_four_digits(number: str) -> None:
    secret = AccountNumber(number)
    one = order(account_number=secret)
    shown = [repr(secret), str(secret), f"{secret}", repr(one), str(one), repr([secret])]
    assert not any(number in text for text in shown)
    assert secret.reveal() == number


def test_no_exception_of_the_client_shows_the_account_number_or_the_key() -> None:
    one = order()

    async def broken(scripted: ScriptedBank) -> str:
        def refuse(*_: object, **__: object) -> None:
            raise RuntimeError("a mistake of ours")

        connection = scripted.client._idle.get_nowait()
        connection._send = refuse  # type: ignore[method-assign]
        scripted.client._idle.put_nowait(connection)
        try:
            await scripted.client.create_transfer(one, may_leave)
        except RuntimeError as error:
            return "".join(traceback.format_exception(error)) + repr(error)
        raise AssertionError("the mistake was swallowed")

    shown = ask_scripted(broken)
    assert "a mistake of ours" in shown
    assert ACCOUNT_NUMBER not in shown
    assert API_KEY not in shown


@pytest.fixture(scope="module")
def bank_of_small_pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BankProcess]:
    with start_bank(tmp_path_factory.mktemp("pages") / "bank.sqlite", api_key=API_KEY, page_size=2) as bank:
        yield bank


def test_look_ups_read_every_page_and_find_what_was_asked_for(bank_of_small_pages: BankProcess) -> None:
    orders = [order() for _ in range(5)]

    async def look_up(client: HuntingtonBank) -> tuple[list[str], list[str], list[list[str]]]:
        for one in orders:
            await client.create_transfer(one, may_leave)
        by_key = await client.find_by_keys([one.idempotency_key for one in orders[:3]] + ["seedtrust-never-sent"])
        by_reference = await client.find_by_references([one.reference for one in orders[1:]])
        since = datetime.now(UTC) - timedelta(hours=1)
        pages = [[one.idempotency_key for one in page] async for page in client.changed_since(since)]
        return [one.idempotency_key for one in by_key], [one.reference for one in by_reference], pages

    by_key, by_reference, pages = ask(settings(bank_of_small_pages.url), look_up)
    assert by_key == [one.idempotency_key for one in orders[:3]]
    assert by_reference == [one.reference for one in orders[1:]]
    assert [len(one) for one in pages] == [2, 2, 1]
    assert [key for keys in pages for key in keys] == [one.idempotency_key for one in orders]


def test_a_moment_in_any_zone_is_asked_for_in_utc() -> None:
    from zoneinfo import ZoneInfo

    async def read(scripted: ScriptedBank) -> str:
        moment = datetime(2024, 7, 1, 8, tzinfo=ZoneInfo("America/New_York"))
        _ = [one async for one in scripted.client.changed_since(moment)]
        return scripted.asked[0].line

    assert "updated_since=2024-07-01T12%3A00%3A00Z" in ask_scripted(read, page())


def test_look_ups_ignore_transfers_that_nobody_asked_for() -> None:
    stranger = transfer("seedtrust-somebody-else", reference="8")
    says = page(stranger, transfer("seedtrust-mine-000001", reference="7"), stranger)

    async def look_up(scripted: ScriptedBank) -> tuple[list[str], list[str]]:
        keys = await scripted.client.find_by_keys(["seedtrust-mine-000001"])
        references = await scripted.client.find_by_references(["7"])
        return [one.idempotency_key for one in keys], [one.reference for one in references]

    assert ask_scripted(look_up, says) == (["seedtrust-mine-000001"], ["7"])


def test_an_answer_to_another_question_does_not_say_what_the_bank_does_not_know() -> None:
    async def look_up(scripted: ScriptedBank) -> list[BankTransfer]:
        return await scripted.client.find_by_keys(["seedtrust-mine-000001"])

    with pytest.raises(BankGaveNoAnswer, match="somebody else's"):
        ask_scripted(look_up, page(transfer("seedtrust-somebody-else", reference="8")))


def test_a_look_up_of_nothing_asks_nothing_for_it_would_mean_everything() -> None:
    async def look_up(scripted: ScriptedBank) -> object:
        return await scripted.client.find_by_keys([]), await scripted.client.find_by_references([]), scripted.asked

    assert ask_scripted(look_up, page(transfer("seedtrust-somebody-else"))) == ([], [], [])


def test_more_than_a_hundred_keys_in_one_look_up_are_a_mistake_of_the_caller(bank: BankProcess) -> None:
    keys = [f"seedtrust-never-sent-{number}" for number in range(101)]
    assert ask(settings_of(bank), lambda client: client.find_by_keys(keys[:100])) == []
    with pytest.raises(ValueError, match="100 keys or references in one look-up, not 101"):
        ask(settings_of(bank), lambda client: client.find_by_keys(keys))


@pytest.mark.parametrize("cursors", [["a"], ["a", "b", "a"]])
def test_pages_that_go_round_in_a_circle_end(cursors: list[str]) -> None:
    with pytest.raises(BankGaveNoAnswer, match="circle"):
        ask_scripted(
            lambda scripted: scripted.client.find_by_keys(["seedtrust-mine-000001"]),
            *[page(cursor=cursor) for cursor in cursors],
        )


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (Says(503), "HTTP 503"),
        (Says(302, b"", {"Location": "/"}), "HTTP 302"),
        (Says(200, b"not JSON"), "the answer could not be read"),
        (Says(200, {"data": [{"id": "tr_1"}], "next_cursor": None}), "the answer could not be read"),
        (Says(429, {}, {"Retry-After": "0"}), "it asked to wait"),
    ],
)
def test_a_question_is_asked_three_times_before_it_counts_as_unanswered(says: Says, why: str) -> None:
    seen: list[Any] = []

    async def look_up(scripted: ScriptedBank) -> object:
        try:
            return await scripted.client.find_by_keys(["seedtrust-mine-000001"])
        finally:
            seen.extend(scripted.asked)

    with pytest.raises(BankGaveNoAnswer, match=why):
        ask_scripted(look_up, says)
    assert len(seen) == QUESTION_TRIES


def test_a_question_that_nobody_answers_is_tried_three_times_too(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[BankRequest] = []
    exchange = BankConnection.exchange

    async def counted(connection: BankConnection, request: BankRequest) -> BankResponse:
        tried.append(request)
        return await exchange(connection, request)

    monkeypatch.setattr(BankConnection, "exchange", counted)
    with pytest.raises(BankGaveNoAnswer, match="no answer within"):
        ask_scripted(
            lambda scripted: scripted.client.find_by_keys(["seedtrust-mine-000001"]),
            Says(200, {"data": []}, pause_seconds=LATE),
            timeout_seconds=0.4,
        )
    assert len(tried) == QUESTION_TRIES


def test_a_question_that_is_answered_at_last_is_answered() -> None:
    async def look_up(scripted: ScriptedBank) -> int:
        return len(await scripted.client.find_by_keys(["seedtrust-mine-000001"]))

    assert ask_scripted(look_up, Says(503), Says(502), page(transfer("seedtrust-mine-000001"))) == 1


def test_look_ups_where_nobody_listens_give_no_answer_and_name_the_bank() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        where = settings(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_seconds=1)
        with pytest.raises(BankGaveNoAnswer, match=where.api_url):
            ask(where, lambda client: client.find_by_keys(["seedtrust-mine-000001"]))


def test_as_many_requests_are_under_way_as_the_settings_say_and_no_more() -> None:
    async def most_at_once(allowed: int) -> int:
        under_way: set[str] = set()
        most = 0
        all_there = asyncio.Event()

        async def answer_when_all_are_there(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal most
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    key = (await read_request(reader)).headers["idempotency-key"]
                    under_way.add(key)
                    most = max(most, len(under_way))
                    if len(under_way) == allowed:
                        all_there.set()
                    await all_there.wait()
                    # For one more to come, if the client sends one more.
                    await asyncio.sleep(0.2)
                    under_way.remove(key)
                    await write_answer(writer, Says(201, transfer(key)))
            writer.close()

        async with await asyncio.start_server(answer_when_all_are_there, "127.0.0.1", 0) as server:
            where = settings(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            async with open_huntington_bank(where.model_copy(update={"concurrency": allowed})) as client:
                answers = await asyncio.gather(
                    *[client.create_transfer(order(), may_leave) for _ in range(2 * allowed)]
                )
        assert all(isinstance(answer, Originated) for answer in answers)
        return most

    assert asyncio.run(most_at_once(4)) == 4
