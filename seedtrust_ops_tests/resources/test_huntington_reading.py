"""Each transfer is read strictly and on its own, and no response fills the memory or is taken for more than it is."""

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import chain, count, repeat
from typing import Any

import pytest

from seedtrust_ops.ports.bank import (
    BankInquiryFailed,
    BankTransfer,
    BankTransfers,
    Originated,
    OutcomeUnknown,
    Refused,
    TransferResponse,
    UnreadableTransfer,
)
from seedtrust_ops.resources.http1_connection import MAX_RESPONSE_BYTES
from seedtrust_ops.resources.huntington_client import MAX_PAGES_WITHOUT_NEWS, OTHER_TRANSFER, open_huntington_bank
from seedtrust_ops_tests.resources.bank_calls import make_order, may_send, response_to, run_with_scripted_bank
from seedtrust_ops_tests.support.scripted_bank import (
    ReceivedRequest,
    ScriptedBank,
    ScriptedResponse,
    page,
    read_request,
    settings,
    transfer,
)

KEY = "seedtrust-transaction-7"
GOOD = transfer("seedtrust-transaction-8", id="tr_good")


def look_up(*responses: ScriptedResponse, keys: Iterable[str] = (KEY, "seedtrust-transaction-8")) -> BankTransfers:
    return run_with_scripted_bank(lambda bank: bank.client.find_by_keys(list(keys)), *responses)


def read_feed(*responses: ScriptedResponse) -> list[BankTransfers]:
    from datetime import UTC, datetime

    async def read(bank: ScriptedBank) -> list[BankTransfers]:
        return [page async for page in bank.client.changed_since(datetime(2026, 1, 1, tzinfo=UTC))]

    return run_with_scripted_bank(read, *responses)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"status": "settling"}, "status 'settling': Input should be 'accepted',"),
        ({"status": "Completed"}, "status 'Completed'"),
        ({"status": None}, "status: Input should be"),
        ({"status": 1}, "status: Input should be"),
        ({"method": "cheque"}, "method 'cheque': Input should be 'ach' or 'wire'."),
        ({"method": None}, "method: Input should be"),
        ({"currency": "EUR"}, "currency 'EUR': Input should be 'USD'."),
        ({"currency": None}, "currency: Input should be"),
        ({"amount_cents": "12500"}, "amount_cents: Input should be a valid integer."),
        ({"amount_cents": "1.00"}, "amount_cents: Input should be a valid integer."),
        ({"amount_cents": True}, "amount_cents: Input should be a valid integer."),
        ({"amount_cents": 1.0}, "amount_cents: Input should be a valid integer."),
        ({"amount_cents": 12500.5}, "amount_cents: Input should be a valid integer."),
        ({"amount_cents": float("nan")}, "amount_cents: Input should be a valid integer."),
        ({"amount_cents": float("inf")}, "amount_cents: Input should be a valid integer."),
        ({"amount_cents": None}, "amount_cents: Input should be a valid integer."),
        ({"amount_cents": [1]}, "amount_cents: Input should be a valid integer."),
        ({"amount_cents": 0}, "amount_cents: Input should be greater than or equal to 1."),
        ({"amount_cents": -5}, "amount_cents: Input should be greater than or equal to 1."),
        ({"amount_cents": 10_000_000_000}, "amount_cents: Input should be less than or equal to 9999999999."),
        ({"amount_cents": 2**63}, "amount_cents: Input should be less than or equal to 9999999999."),
        ({"id": None}, "id: Input should be a valid string."),
        ({"id": ""}, "id: "),
        ({"id": 5}, "id: Input should be a valid string."),
        ({"id": "tr_\x00"}, "id: "),
        ({"id": "tr_\u202e1"}, "id: "),
        ({"id": "tr_\ud800"}, "id: Input should be a valid string"),
        ({"id": "t" * 201}, "id: String should have at most 200 characters."),
        ({"idempotency_key": None}, "idempotency_key: Input should be a valid string."),
        ({"idempotency_key": f"{KEY}\n"}, "idempotency_key: "),
        ({"reference": None}, "reference: Input should be a valid string."),
        ({"reference": 7}, "reference: Input should be a valid string."),
        ({"updated_at": "2026-03-01T12:00:00"}, "updated_at: Input should be a moment with a time zone."),
        ({"updated_at": "2026-03-01"}, "updated_at: Input should be a moment with a time zone."),
        ({"updated_at": 1_772_366_400}, "updated_at: Input should be a moment with a time zone."),
        ({"updated_at": "1772366400"}, "updated_at: Input should be a moment with a time zone."),
        ({"updated_at": "infinity"}, "updated_at: Input should be a moment with a time zone."),
        ({"updated_at": "20260-03-01T12:00:00Z"}, "updated_at: Input should be a moment with a time zone."),
        ({"updated_at": "2026-13-01T12:00:00Z"}, "updated_at: Input should be a valid datetime"),
        ({"updated_at": "0001-01-01T00:00:00Z"}, "updated_at: Input is out of range."),
        ({"updated_at": "0001-01-01T00:00:00+12:00"}, "updated_at: Input is out of range."),
        ({"updated_at": "9999-12-31T23:59:59-12:00"}, "updated_at: Input is out of range."),
        ({"created_at": "1970-01-01T00:00:00Z"}, "created_at: Input is out of range."),
        ({"created_at": None}, "created_at: Input should be a moment with a time zone."),
        ({"reason": ["no"]}, "reason: Input should be a valid string."),
        ({"status": "settling", "currency": "EUR"}, "currency 'EUR'"),
    ],
)
def test_odd_transfer_is_unreadable_and_the_others_are_read(changes: dict[str, Any], problem: str) -> None:
    (first,) = read_feed(page(transfer(KEY) | changes, GOOD))
    assert [one.id for one in first.readable] == ["tr_good"]
    (unreadable,) = first.unreadable
    assert problem in unreadable.problem
    named = {"id": "tr_1", "idempotency_key": KEY, "reference": "7"} | dict.fromkeys(
        changes.keys() & {"id", "idempotency_key", "reference"}
    )
    assert [unreadable.bank_transfer_id, unreadable.idempotency_key, unreadable.reference] == list(named.values())


@pytest.mark.parametrize(
    "name",
    ["id", "idempotency_key", "status", "method", "amount_cents", "currency", "reference", "created_at", "updated_at"],
)
def test_missing_field_makes_a_transfer_unreadable(name: str) -> None:
    odd = transfer(KEY)
    del odd[name]
    (first,) = read_feed(page(odd, GOOD))
    assert [one.id for one in first.readable] == ["tr_good"]
    assert first.unreadable[0].problem == f"{name}: Field required."


DEEP = b"[" * 200 + b"]" * 200


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (b"null", "It is not an object."),
        (b"[]", "It is not an object."),
        (b'"tr_1"', "It is not an object."),
        (b'{"id": "tr_1", "status": "accepted", "status": "completed"}', "It has the same field twice."),
        (b'{"id": "tr_1", "amount_cents": ' + b"9" * 10_000 + b"}", "amount_cents: Input should be a valid integer."),
        (b'{"id": "tr_1", "amount_cents": -' + b"9" * 10_000 + b"}", "amount_cents: Input should be a valid integer."),
        (b'{"id": "tr_\xff\xfe"}', "id: Input should be a valid string"),
        (b'{"id": "tr_1", "status": ' + DEEP + b"}", "status: Input should be"),
    ],
    ids=["null", "list", "text", "same field twice", "huge", "huge negative", "not UTF-8", "deep"],
)
def test_odd_json_spoils_only_its_own_transfer(row: bytes, problem: str) -> None:
    body = b'{"data": [' + row + b", " + json.dumps(GOOD).encode() + b'], "next_cursor": null}'
    (first,) = read_feed(ScriptedResponse(200, body))
    assert [one.id for one in first.readable] == ["tr_good"]
    assert problem in first.unreadable[0].problem


def test_free_text_that_is_not_text_is_replaced_not_refused() -> None:
    odd = json.dumps(transfer(KEY, reason="R")).encode().replace(b'"R"', b'"\xff line\none \\ud800"')
    (first,) = read_feed(ScriptedResponse(200, b'{"data": [' + odd + b'], "next_cursor": null}'))
    assert [one.reason for one in first.readable] == ["? line one ?"]


def test_problem_shows_no_account_number() -> None:
    (first,) = read_feed(page(transfer(KEY, status="held: 730051186423", amount_cents="730051186423")))
    assert "7300" not in first.unreadable[0].problem


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"data": [], "next_cursor": 5}',
        b'{"data": {}, "next_cursor": null}',
        b'{"data": []}',
        b'{"data": [], "data": [], "next_cursor": null}',
        b'{"data": [], "next_cursor": "' + b"c" * 3_000 + b'"}',
        b"[]",
        b"null",
        b'{"data": [',
    ],
)
def test_body_that_is_no_page_is_a_failed_inquiry(body: bytes) -> None:
    with pytest.raises(BankInquiryFailed, match="could not be parsed"):
        look_up(ScriptedResponse(200, body))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"reference": "8"}, "the response was for another transfer"),
        ({"idempotency_key": "seedtrust-transaction-8"}, "the response was for another transfer"),
        ({"reference": None}, "the response could not be parsed"),
        ({"currency": "EUR"}, "the response could not be parsed"),
        ({"amount_cents": "1.00"}, "the response could not be parsed"),
        ({"amount_cents": True}, "the response could not be parsed"),
        ({"status": "settling"}, "the response could not be parsed"),
    ],
)
def test_odd_response_to_our_request_is_an_unknown_outcome(changes: dict[str, Any], expected: str) -> None:
    order = make_order(idempotency_key=KEY)
    assert response_to(order, ScriptedResponse(201, transfer(KEY) | changes)) == OutcomeUnknown(expected)


def answering(transfers: Iterable[Mapping[str, Any]]) -> Any:
    """A bank that has these transfers by the key they are stored under, and shows each with its `shown` fields."""
    stored = {one["key"]: one["shown"] for one in transfers}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from urllib.parse import parse_qs, urlsplit

        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                received = await read_request(reader)
                query = parse_qs(urlsplit(received.line.split()[1]).query)
                asked = query.get("idempotency_key", []) + query.get("reference", [])
                response = page(*[stored[one] for one in asked if one in stored])
                writer.write(response.head + response.content)
                await writer.drain()
        writer.close()

    return serve


@pytest.mark.parametrize(
    ("shown", "unreadable_id"),
    [
        (transfer(KEY) | {"idempotency_key": None}, "tr_1"),
        (transfer(KEY) | {"idempotency_key": None, "id": None}, None),
        (transfer(KEY) | {"idempotency_key": KEY.upper()}, None),
    ],
    ids=["no key", "no key and no id", "another key"],
)
def test_transfer_that_does_not_name_its_key_is_asked_for_alone(
    shown: dict[str, Any], unreadable_id: str | None
) -> None:
    keys = [f"seedtrust-transaction-{number}" for number in range(100)]
    serve = answering(
        [{"key": KEY, "shown": shown}] + [{"key": key, "shown": transfer(key, id=f"tr_{key}")} for key in keys[50:60]]
    )

    async def ask() -> BankTransfers:
        async with (
            await asyncio.start_server(serve, "127.0.0.1", 0) as server,
            open_huntington_bank(settings(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")) as client,
        ):
            return await client.find_by_keys(keys)

    found = asyncio.run(ask())
    assert [one.idempotency_key for one in found.readable] == keys[50:60]
    assert [(one.bank_transfer_id, one.idempotency_key) for one in found.unreadable] == [(unreadable_id, KEY)]


def test_second_transfer_without_a_reference_is_not_overlooked() -> None:
    found = run_with_scripted_bank(
        lambda bank: bank.client.find_by_references(["7"]),
        page(transfer(KEY), transfer("another", id="tr_2") | {"reference": None}),
    )
    assert [one.id for one in found.readable] == ["tr_1"]
    assert [(one.bank_transfer_id, one.reference) for one in found.unreadable] == [("tr_2", "7")]


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (ScriptedResponse(404, {"code": "not_found"}), None),
        (ScriptedResponse(200, transfer(KEY, id="tr/ 1", status="settling")), "status 'settling'"),
        (ScriptedResponse(200, transfer(KEY, id="tr_2")), OTHER_TRANSFER),
        (ScriptedResponse(200, transfer(KEY, id="tr/ 1")), "tr/ 1"),
    ],
    ids=["not found", "unreadable", "another", "found"],
)
def test_transfer_is_asked_for_by_its_id(response: ScriptedResponse, expected: str | None) -> None:
    async def ask(bank: ScriptedBank) -> tuple[BankTransfer | UnreadableTransfer | None, str]:
        return await bank.client.get_transfer("tr/ 1"), bank.requests[0].line

    found, line = run_with_scripted_bank(ask, response)
    assert line == "GET /v1/transfers/tr%2F%201 HTTP/1.1"
    match found:
        case None:
            assert expected is None
        case UnreadableTransfer():
            assert found.problem.startswith(expected or "-")
        case BankTransfer():
            assert found.id == expected


def test_endless_pages_without_news_end_with_an_error() -> None:
    requests: list[ReceivedRequest] = []

    async def ask(bank: ScriptedBank) -> BankTransfers:
        try:
            return await bank.client.find_by_keys([KEY])
        finally:
            requests.extend(bank.requests)

    with pytest.raises(BankInquiryFailed, match="circular"):
        run_with_scripted_bank(ask, *[page(GOOD, cursor=f"c{number}") for number in range(2 * MAX_PAGES_WITHOUT_NEWS)])
    assert len(requests) == MAX_PAGES_WITHOUT_NEWS + 2


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "raw deflate", "GZIP"])
def test_encoded_response_is_decoded_all_the_same(encoding: str) -> None:
    content = json.dumps(page(GOOD).body).encode()
    if "gzip" in encoding.lower():
        content = gzip.compress(content)
    else:
        compressor = zlib.compressobj(wbits=-15 if encoding.startswith("raw") else 15)
        content = compressor.compress(content) + compressor.flush()
    response = ScriptedResponse(200, content, {"Content-Encoding": encoding.removeprefix("raw ")})
    assert [one.id for one in look_up(response, keys=[GOOD["idempotency_key"]]).readable] == ["tr_good"]


@pytest.mark.parametrize("status", [201, 422])
def test_byte_order_mark_is_accepted(status: int) -> None:
    order = make_order()
    body = transfer(order.idempotency_key) if status == 201 else {"code": "invalid_account", "message": None}
    response = response_to(order, ScriptedResponse(status, b"\xef\xbb\xbf" + json.dumps(body).encode()))
    assert isinstance(response, Originated) if status == 201 else response == Refused("invalid_account", "")


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("br", b"\x0b\x02\x80{}\x03"),
        ("gzip", b"not gzip"),
        ("gzip", gzip.compress(b'{"data": []}')[:-9]),
        ("gzip, gzip", b""),
    ],
    ids=["br", "not gzip", "cut", "twice"],
)
def test_response_that_cannot_be_decoded_is_an_unknown_outcome(encoding: str, content: bytes) -> None:
    response = response_to(make_order(), ScriptedResponse(201, content, {"Content-Encoding": encoding}))
    assert response == OutcomeUnknown("the response could not be parsed")


TOO_LARGE = OutcomeUnknown(f"the response has more than {MAX_RESPONSE_BYTES:,} bytes")


def test_response_that_is_too_large_once_decoded_is_an_unknown_outcome() -> None:
    bomb = zlib.compressobj(9, wbits=31)
    content = b"".join(bomb.compress(b"\x00" * 1_000_000) for _ in range(1_000)) + bomb.flush()
    assert len(content) < 2_000_000
    tracemalloc.start()
    response = response_to(make_order(), ScriptedResponse(201, content, {"Content-Encoding": "gzip"}))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert response == TOO_LARGE
    assert peak_bytes < 5 * MAX_RESPONSE_BYTES


HEAD = b"HTTP/1.1 201 Created\r\n"
MEGABYTE = b" " * 1_000_000


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (chain([HEAD + b"Content-Length: 2000000000\r\n\r\n"], repeat(MEGABYTE)), TOO_LARGE),
        (chain([HEAD + b"\r\n"], repeat(MEGABYTE)), TOO_LARGE),
        (chain([HEAD + b"Transfer-Encoding: chunked\r\n\r\n"], repeat(b"F4240\r\n" + MEGABYTE + b"\r\n")), TOO_LARGE),
        (repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000), TOO_LARGE),
        (chain([HEAD], (b"X-%d: y\r\n" % number for number in count())), None),
        (chain([HEAD + b"X: "], repeat(MEGABYTE)), None),
    ],
    ids=["length", "until closed", "chunked", "interim", "headers", "header"],
)
def test_endless_response_is_cut_and_counts_as_unknown(
    pieces: Iterable[bytes], expected: OutcomeUnknown | None
) -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with suppress(ConnectionError):
            await read_request(reader)
            for piece in pieces:
                sent += len(piece)
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def send() -> TransferResponse:
        async with (
            await asyncio.start_server(serve, "127.0.0.1", 0) as server,
            open_huntington_bank(settings(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")) as client,
        ):
            return await client.create_transfer(make_order(), may_send)

    response = asyncio.run(send())
    assert response == expected if expected else isinstance(response, OutcomeUnknown)
    # What the sockets' buffers hold comes on top of what was read.
    assert sent < 5 * MAX_RESPONSE_BYTES
