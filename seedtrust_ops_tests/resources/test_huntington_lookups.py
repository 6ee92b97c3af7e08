"""Lookups read every page, return exactly what was requested, and fail if the bank gives no readable response."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from seedtrust_ops.ports.bank import BankInquiryFailed, BankTransfers
from seedtrust_ops.resources.http1_connection import BankConnection, HttpRequest, HttpResponse
from seedtrust_ops.resources.huntington_client import LOOKUP_ATTEMPTS, HuntingtonBank
from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops_tests.resources.bank_calls import (
    LATE_SECONDS,
    make_order,
    may_send,
    run_with_client,
    run_with_scripted_bank,
    settings_of,
)
from seedtrust_ops_tests.support.scripted_bank import API_KEY, ScriptedBank, ScriptedResponse, page, settings, transfer
from seedtrust_ops_tests.support.tiers import Resource, provides


@pytest.fixture(scope="module")
@provides(Resource.PROCESS)
def bank_with_small_pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BankProcess]:
    with start_bank(tmp_path_factory.mktemp("pages") / "bank.sqlite", api_key=API_KEY, page_size=2) as bank:
        yield bank


def test_look_ups_read_every_page_and_find_what_was_requested(bank_with_small_pages: BankProcess) -> None:
    orders = [make_order() for _ in range(5)]

    async def look_up(client: HuntingtonBank) -> tuple[list[str], list[str], list[list[str]]]:
        for order in orders:
            await client.create_transfer(order, may_send)
        by_key = await client.find_by_keys([order.idempotency_key for order in orders[:3]] + ["seedtrust-never-sent"])
        by_reference = await client.find_by_references([order.reference for order in orders[1:]])
        since = datetime.now(UTC) - timedelta(hours=1)
        pages = [[transfer.idempotency_key for transfer in page.readable] async for page in client.changed_since(since)]
        return (
            [transfer.idempotency_key for transfer in by_key.readable],
            [transfer.reference for transfer in by_reference.readable],
            pages,
        )

    by_key, by_reference, pages = run_with_client(settings(bank_with_small_pages.url), look_up)
    assert by_key == [order.idempotency_key for order in orders[:3]]
    assert by_reference == [order.reference for order in orders[1:]]
    assert [len(transfers_page) for transfers_page in pages] == [2, 2, 1]
    assert [key for keys in pages for key in keys] == [order.idempotency_key for order in orders]


def test_feed_start_in_any_time_zone_is_sent_in_utc() -> None:
    from zoneinfo import ZoneInfo

    async def read(scripted: ScriptedBank) -> str:
        since = datetime(2024, 7, 1, 8, tzinfo=ZoneInfo("America/New_York"))
        _ = [page async for page in scripted.client.changed_since(since)]
        return scripted.requests[0].line

    assert "updated_since=2024-07-01T12%3A00%3A00Z" in run_with_scripted_bank(read, page())


def test_look_ups_ignore_transfers_that_were_not_requested() -> None:
    unrequested = transfer("seedtrust-somebody-else", reference="8")
    scripted_page = page(unrequested, transfer("seedtrust-mine-000001", reference="7"), unrequested)

    async def look_up(scripted: ScriptedBank) -> tuple[list[str], list[str]]:
        keys = await scripted.client.find_by_keys(["seedtrust-mine-000001"])
        references = await scripted.client.find_by_references(["7"])
        return [key.idempotency_key for key in keys.readable], [
            reference.reference for reference in references.readable
        ]

    assert run_with_scripted_bank(look_up, scripted_page) == (["seedtrust-mine-000001"], ["7"])


def test_look_up_response_for_another_request_is_unreadable_not_absent() -> None:
    async def look_up(scripted: ScriptedBank) -> BankTransfers:
        return await scripted.client.find_by_keys(["seedtrust-mine-000001"])

    answer = run_with_scripted_bank(look_up, page(transfer("seedtrust-somebody-else", reference="8")))
    assert answer.readable == []
    assert [one.idempotency_key for one in answer.unreadable] == ["seedtrust-mine-000001"]


def test_look_up_of_nothing_sends_no_request() -> None:
    async def look_up(scripted: ScriptedBank) -> object:
        return await scripted.client.find_by_keys([]), await scripted.client.find_by_references([]), scripted.requests

    assert run_with_scripted_bank(look_up, page(transfer("seedtrust-somebody-else"))) == (
        BankTransfers(),
        BankTransfers(),
        [],
    )


def test_look_up_of_more_than_100_keys_is_a_caller_error(bank: BankProcess) -> None:
    keys = [f"seedtrust-never-sent-{number}" for number in range(101)]
    assert run_with_client(settings_of(bank), lambda client: client.find_by_keys(keys[:100])) == BankTransfers()
    with pytest.raises(ValueError, match="100 keys or references in one lookup, not 101"):
        run_with_client(settings_of(bank), lambda client: client.find_by_keys(keys))


@pytest.mark.parametrize("cursors", [["a"], ["a", "b", "a"]])
def test_circular_pages_end_with_an_error(cursors: list[str]) -> None:
    with pytest.raises(BankInquiryFailed, match="circular"):
        run_with_scripted_bank(
            lambda scripted: scripted.client.find_by_keys(["seedtrust-mine-000001"]),
            *[page(cursor=cursor) for cursor in cursors],
        )


@pytest.mark.parametrize(
    ("scripted_response", "reason"),
    [
        (ScriptedResponse(503), "HTTP 503"),
        (ScriptedResponse(302, b"", {"Location": "/"}), "HTTP 302"),
        (ScriptedResponse(200, b"not JSON"), "the response could not be parsed"),
        (ScriptedResponse(200, {"data": [], "next_cursor": 5}), "the response could not be parsed"),
        (ScriptedResponse(429, {}, {"Retry-After": "0"}), "rate limited"),
    ],
)
def test_look_up_is_tried_three_times_before_it_fails(scripted_response: ScriptedResponse, reason: str) -> None:
    seen: list[Any] = []

    async def look_up(scripted: ScriptedBank) -> object:
        try:
            return await scripted.client.find_by_keys(["seedtrust-mine-000001"])
        finally:
            seen.extend(scripted.requests)

    with pytest.raises(BankInquiryFailed, match=reason):
        run_with_scripted_bank(look_up, scripted_response)
    assert len(seen) == LOOKUP_ATTEMPTS


def test_look_up_that_times_out_is_tried_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[HttpRequest] = []
    exchange = BankConnection.exchange

    async def counted(connection: BankConnection, request: HttpRequest) -> HttpResponse:
        tried.append(request)
        return await exchange(connection, request)

    monkeypatch.setattr(BankConnection, "exchange", counted)
    with pytest.raises(BankInquiryFailed, match="no response within"):
        run_with_scripted_bank(
            lambda scripted: scripted.client.find_by_keys(["seedtrust-mine-000001"]),
            ScriptedResponse(200, {"data": []}, pause_seconds=LATE_SECONDS),
            timeout_seconds=0.4,
        )
    assert len(tried) == LOOKUP_ATTEMPTS


def test_look_up_that_succeeds_on_the_last_try_succeeds() -> None:
    async def look_up(scripted: ScriptedBank) -> int:
        return len((await scripted.client.find_by_keys(["seedtrust-mine-000001"])).readable)

    assert (
        run_with_scripted_bank(
            look_up, ScriptedResponse(503), ScriptedResponse(502), page(transfer("seedtrust-mine-000001"))
        )
        == 1
    )


def test_look_up_at_a_closed_port_fails_and_names_the_bank() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        bank_settings = settings(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_seconds=1)
        with pytest.raises(BankInquiryFailed, match=bank_settings.api_url):
            run_with_client(bank_settings, lambda client: client.find_by_keys(["seedtrust-mine-000001"]))
