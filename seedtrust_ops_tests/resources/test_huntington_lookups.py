"""Look-ups read every page, find what was asked for and nothing else, and say so where the bank gives no answer."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from seedtrust_ops.ports.bank import BankInquiryFailed, BankTransfer
from seedtrust_ops.resources.http1_connection import BankConnection, BankRequest, BankResponse
from seedtrust_ops.resources.huntington_client import QUESTION_TRIES, HuntingtonBank
from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops_tests.resources.bank_calls import LATE, ask, ask_scripted, may_leave, order, settings_of
from seedtrust_ops_tests.support.scripted_bank import API_KEY, Says, ScriptedBank, page, settings, transfer


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

    with pytest.raises(BankInquiryFailed, match="somebody else's"):
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
    with pytest.raises(BankInquiryFailed, match="circle"):
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

    with pytest.raises(BankInquiryFailed, match=why):
        ask_scripted(look_up, says)
    assert len(seen) == QUESTION_TRIES


def test_a_question_that_nobody_answers_is_tried_three_times_too(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[BankRequest] = []
    exchange = BankConnection.exchange

    async def counted(connection: BankConnection, request: BankRequest) -> BankResponse:
        tried.append(request)
        return await exchange(connection, request)

    monkeypatch.setattr(BankConnection, "exchange", counted)
    with pytest.raises(BankInquiryFailed, match="no answer within"):
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
        with pytest.raises(BankInquiryFailed, match=where.api_url):
            ask(where, lambda client: client.find_by_keys(["seedtrust-mine-000001"]))
