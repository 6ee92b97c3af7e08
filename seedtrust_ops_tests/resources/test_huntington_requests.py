"""A request follows the contract, never gets another request's response, and exposes no account number or API key."""

import asyncio
import json
import time
import traceback
from contextlib import suppress
from typing import Any

import pytest

from seedtrust_ops.ports.bank import AccountNumber, NotSent, Originated, Refused, TransferResponse
from seedtrust_ops.resources.huntington_client import HuntingtonBank, open_huntington_bank
from seedtrust_ops.resources.huntington_schema import MAX_BANK_TEXT_CHARS, mask_digits
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
    run_with_scripted_bank,
    settings_of,
)
from seedtrust_ops_tests.support.scripted_bank import (
    API_KEY,
    ScriptedBank,
    ScriptedResponse,
    read_request,
    settings,
    transfer,
    write_response,
)


def test_request_canceled_before_it_is_written_is_not_sent() -> None:
    async def cancel_then_send(scripted: ScriptedBank) -> tuple[TransferResponse, TransferResponse, list[str]]:
        canceled = await scripted.client.create_transfer(make_order(), lambda: False)
        sent = await scripted.client.create_transfer(make_order(), may_send)
        return canceled, sent, [received.line for received in scripted.requests]

    canceled, sent, lines = run_with_scripted_bank(cancel_then_send, ScriptedResponse(422, {"code": "invalid_account"}))
    assert canceled == NotSent("the request was canceled before it was sent")
    assert sent == Refused("invalid_account", "")
    assert lines == ["POST /v1/transfers HTTP/1.1"]


def test_unsolicited_data_is_not_taken_as_the_next_response(bank: BankProcess) -> None:
    before, order, next_order = make_order(), make_order(), make_order()
    bank.control.inject_fault("refuse", idempotency_key=before.idempotency_key)
    bank.control.inject_fault("duplicate_response", idempotency_key=order.idempotency_key)

    async def send_three(client: HuntingtonBank) -> list[TransferResponse]:
        return [await client.create_transfer(each, may_send) for each in (before, order, next_order)]

    refused, *others = run_with_client(settings_of(bank), send_three)
    assert isinstance(refused, Refused)
    assert [isinstance(response, Originated) for response in others] == [True, True]


def test_refusal_repeated_late_is_not_taken_as_the_next_response() -> None:
    refusal = ScriptedResponse(422, {"code": "invalid_account", "message": "closed"})

    async def refuse_on_first_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        refused = connections == 1
        with suppress(asyncio.IncompleteReadError):
            while True:
                received = await read_request(reader)
                key = received.headers["idempotency-key"]
                await write_response(writer, refusal if refused else ScriptedResponse(201, transfer(key)))
        writer.close()

    async def send_two() -> list[TransferResponse]:
        async with await asyncio.start_server(refuse_on_first_connection, "127.0.0.1", 0) as server:
            bank_settings = settings(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            async with open_huntington_bank(bank_settings) as client:
                return [await client.create_transfer(make_order(), may_send) for _ in range(2)]

    connections = 0
    refused, made = asyncio.run(send_two())
    assert refused == Refused("invalid_account", "closed")
    assert isinstance(made, Originated)


def test_connection_closed_by_the_bank_is_not_reused() -> None:
    order, next_order = make_order(), make_order()
    closing = {"Connection": "close"}

    async def send_two(scripted: ScriptedBank) -> list[TransferResponse]:
        return [await scripted.client.create_transfer(each, may_send) for each in (order, next_order)]

    responses = [ScriptedResponse(201, transfer(each.idempotency_key), closing) for each in (order, next_order)]
    assert all(isinstance(response, Originated) for response in run_with_scripted_bank(send_two, *responses))


@pytest.mark.parametrize("dripping", ["headers", "body"])
def test_dripping_response_times_out_and_the_client_stays_usable(bank: BankProcess, dripping: str) -> None:
    order, next_order = make_order(), make_order()

    async def both(client: HuntingtonBank) -> tuple[TransferResponse, float, TransferResponse]:
        began = time.monotonic()
        first = await client.create_transfer(order, may_send)
        took = time.monotonic() - began
        return first, took, await client.create_transfer(next_order, may_send)

    if dripping == "headers":
        bank.control.inject_fault("slow_drip", idempotency_key=order.idempotency_key, seconds=0.2)
        first, took, second = run_with_client(settings_of(bank, timeout_seconds=SHORT_TIMEOUT_SECONDS), both)
    else:
        slow = ScriptedResponse(201, transfer(order.idempotency_key), pause_seconds=0.2)
        first, took, second = run_with_scripted_bank(
            lambda scripted: both(scripted.client),
            *(slow, ScriptedResponse(201, transfer(next_order.idempotency_key))),
            timeout_seconds=SHORT_TIMEOUT_SECONDS,
        )
    assert first == NO_RESPONSE
    assert took < LATE_SECONDS
    assert isinstance(second, Originated)


def test_request_contains_exactly_what_the_contract_requires() -> None:
    order = make_order()

    async def sent(scripted: ScriptedBank) -> Any:
        await scripted.client.create_transfer(order, may_send)
        return scripted.requests

    (received,) = run_with_scripted_bank(sent, ScriptedResponse(201, transfer(order.idempotency_key)))
    assert received.line == "POST /v1/transfers HTTP/1.1"
    assert received.headers["authorization"] == f"Bearer {API_KEY}"
    assert received.headers["idempotency-key"] == order.idempotency_key
    assert received.headers["content-type"] == "application/json"
    assert json.loads(received.body) == {
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
        "reference": order.reference,
    }


def test_proxy_environment_variables_are_ignored(monkeypatch: pytest.MonkeyPatch, bank: BankProcess) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert isinstance(
        run_with_client(settings_of(bank), lambda client: client.create_transfer(make_order(), may_send)), Originated
    )


def test_api_key_quoted_by_the_bank_is_masked() -> None:
    order = make_order()
    refusal = response_to(
        order, ScriptedResponse(422, {"code": API_KEY.replace("-", "_"), "message": f"key {API_KEY} is old"})
    )
    rejected = response_to(
        order, ScriptedResponse(201, transfer(order.idempotency_key, status="rejected", reason=f"by {API_KEY}"))
    )
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
@pytest.mark.parametrize("field", ["message", "reason", "return_code"])
def test_account_number_quoted_by_the_bank_is_masked(text: str, field: str) -> None:
    order = make_order()
    if field == "message":
        scripted = ScriptedResponse(422, {"code": "invalid_account", "message": text})
    else:
        scripted = ScriptedResponse(201, transfer(order.idempotency_key, status="rejected", **{field: text}))
    shown = (
        repr(response_to(order, scripted))
        .replace(order.reference, "")
        .replace(order.idempotency_key, "")
        .replace("12500", "")
    )
    assert isinstance(response_to(order, scripted), Refused | Originated)
    digits = "".join(character for character in shown.partition("updated_at")[0] if character.isdigit())
    assert ACCOUNT_NUMBER not in digits
    assert "6423" not in digits
    assert "\\x00" not in shown


def test_text_without_account_numbers_is_not_masked() -> None:
    assert mask_digits("R01: 3 of 12 tries; closed on the 4th") == "R01: 3 of 12 tries; closed on the 4th"


def test_long_text_of_the_bank_is_cut_after_it_was_masked() -> None:
    text = mask_digits("x" * (MAX_BANK_TEXT_CHARS - 6) + ACCOUNT_NUMBER + "y" * 1_000_000)
    assert len(text) == MAX_BANK_TEXT_CHARS
    assert ACCOUNT_NUMBER[:2] not in text


@pytest.mark.parametrize("number", ["1234", "12345", ACCOUNT_NUMBER, "1" * 17])
def test_account_number_shows_at_most_its_last_four_digits(number: str) -> None:
    secret = AccountNumber(number)
    order = make_order(account_number=secret)
    shown = [repr(secret), str(secret), f"{secret}", repr(order), str(order), repr([secret])]
    assert not any(number in text for text in shown)
    assert secret.reveal() == number


def test_client_exceptions_show_neither_account_number_nor_api_key() -> None:
    order = make_order()

    async def broken(scripted: ScriptedBank) -> str:
        def refuse(*_: object, **__: object) -> None:
            raise RuntimeError("a bug in the client")

        connection = scripted.client._idle.get_nowait()
        connection._send = refuse  # type: ignore[method-assign]
        scripted.client._idle.put_nowait(connection)
        try:
            await scripted.client.create_transfer(order, may_send)
        except RuntimeError as error:
            return "".join(traceback.format_exception(error)) + repr(error)
        raise AssertionError("the error was swallowed")

    shown = run_with_scripted_bank(broken)
    assert "a bug in the client" in shown
    assert ACCOUNT_NUMBER not in shown
    assert API_KEY not in shown


def test_concurrent_requests_match_the_configured_concurrency() -> None:
    async def max_concurrent(allowed: int) -> int:
        in_flight: set[str] = set()
        highest = 0
        all_arrived = asyncio.Event()

        async def respond_when_all_arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal highest
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    key = (await read_request(reader)).headers["idempotency-key"]
                    in_flight.add(key)
                    highest = max(highest, len(in_flight))
                    if len(in_flight) == allowed:
                        all_arrived.set()
                    await all_arrived.wait()
                    # Gives the client time to send one more, if it would.
                    await asyncio.sleep(0.2)
                    in_flight.remove(key)
                    await write_response(writer, ScriptedResponse(201, transfer(key)))
            writer.close()

        async with await asyncio.start_server(respond_when_all_arrived, "127.0.0.1", 0) as server:
            bank_settings = settings(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            async with open_huntington_bank(bank_settings.model_copy(update={"concurrency": allowed})) as client:
                responses = await asyncio.gather(
                    *[client.create_transfer(make_order(), may_send) for _ in range(2 * allowed)]
                )
        assert all(isinstance(response, Originated) for response in responses)
        return highest

    assert asyncio.run(max_concurrent(4)) == 4
