"""A request is what the contract says, gets no other's answer, and shows neither account number nor key."""

import asyncio
import json
import time
import traceback
from contextlib import suppress
from typing import Any

import pytest

from seedtrust_ops.ports.bank import AccountNumber, Answer, NotSent, Originated, Refused
from seedtrust_ops.resources.huntington_client import HuntingtonBank, open_huntington_bank
from seedtrust_ops.resources.huntington_schema import without_numbers
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.resources.bank_calls import (
    ACCOUNT_NUMBER,
    IMPATIENT_SECONDS,
    LATE,
    NO_ANSWER,
    answer_to,
    ask,
    ask_scripted,
    may_leave,
    order,
    settings_of,
)
from seedtrust_ops_tests.support.scripted_bank import (
    API_KEY,
    Says,
    ScriptedBank,
    read_request,
    settings,
    transfer,
    write_answer,
)


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


def test_a_refusal_that_is_said_again_once_the_next_request_has_left_is_not_taken_for_its_answer() -> None:
    refusal = Says(422, {"code": "invalid_account", "message": "closed"})

    async def refuse_a_connection_for_ever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        refused = connections == 1
        with suppress(asyncio.IncompleteReadError):
            while True:
                asked = await read_request(reader)
                key = asked.headers["idempotency-key"]
                await write_answer(writer, refusal if refused else Says(201, transfer(key)))
        writer.close()

    async def two() -> list[Answer]:
        async with await asyncio.start_server(refuse_a_connection_for_ever, "127.0.0.1", 0) as server:
            where = settings(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            async with open_huntington_bank(where) as client:
                return [await client.create_transfer(order(), may_leave) for _ in range(2)]

    connections = 0
    refused, made = asyncio.run(two())
    assert refused == Refused("invalid_account", "closed")
    assert isinstance(made, Originated)


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
