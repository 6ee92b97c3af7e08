"""GET /v1/transfers and its sisters keep the contract: filters, the feed's order, cursors that never skip."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops_tests.sandbox.bank.bank_requests import API_KEY, body, client_of, fresh, send, sent


@pytest.fixture
def small_pages(database: Path) -> Iterator[BankProcess]:
    with start_bank(database, api_key=API_KEY, page_size=2) as bank:
        yield bank


def pages(client: httpx.Client, params: dict[str, Any], *, repeat_filters: bool = True) -> Iterator[list[Any]]:
    page = client.get("/v1/transfers", params=params).json()
    yield page["data"]
    while page["next_cursor"] is not None:
        params = {**(params if repeat_filters else {}), "cursor": page["next_cursor"]}
        page = client.get("/v1/transfers", params=params).json()
        yield page["data"]


def test_a_transfer_is_found_by_its_key_and_an_unknown_key_is_absent(client: httpx.Client) -> None:
    key = fresh("key")
    transfer = send(client, body(), key).json()
    page = client.get("/v1/transfers", params={"idempotency_key": [key, fresh("key")]}).json()
    assert page == {"data": [transfer], "next_cursor": None}


def test_every_transfer_with_a_reference_is_found(client: httpx.Client) -> None:
    reference = fresh()
    expected = [sent(client, reference=reference) for _ in range(2)]
    assert client.get("/v1/transfers", params={"reference": reference}).json()["data"] == expected


def test_filters_narrow_each_other(client: httpx.Client) -> None:
    one, other = sent(client), sent(client)
    params = {"idempotency_key": one["idempotency_key"], "reference": other["reference"]}
    assert client.get("/v1/transfers", params=params).json()["data"] == []


@pytest.mark.parametrize("name", ["idempotency_key", "reference"])
def test_a_hundred_values_are_taken_and_one_more_is_refused(client: httpx.Client, name: str) -> None:
    transfer = sent(client)
    values = [transfer[name], *(fresh() for _ in range(99))]
    assert client.get("/v1/transfers", params={name: values}).json()["data"] == [transfer]
    answer = client.get("/v1/transfers", params={name: [*values, fresh()]})
    assert answer.status_code == 422
    assert "100" in answer.json()["message"]


def test_updated_since_is_inclusive_to_the_microsecond(client: httpx.Client) -> None:
    first, second = sent(client), sent(client)
    since = client.get("/v1/transfers", params={"updated_since": first["updated_at"]}).json()["data"]
    assert since == [first, second]
    after = datetime.fromisoformat(first["updated_at"]) + timedelta(microseconds=1)
    elsewhere = after.astimezone().isoformat()
    assert client.get("/v1/transfers", params={"updated_since": elsewhere}).json()["data"] == [second]


@pytest.mark.parametrize(
    "query",
    [
        {"updated_since": "yesterday"},
        {"updated_since": "2026-01-01"},
        {"updated_since": "2026-01-01T00:00:00"},
        {"updated_since": "2026-02-30T00:00:00Z"},
        {"updated_since": "0001-01-01T00:00:00+23:00"},
        {"updated_since": ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"]},
        {"cursor": "not-a-cursor"},
        {"cursor": "é"},
        {"cursor": ""},
        {"cursor": "W10="},
        {"idempotency_keys": "misspelt"},
    ],
    ids=str,
)
def test_a_malformed_query_is_refused_with_a_problem(client: httpx.Client, query: dict[str, Any]) -> None:
    answer = client.get("/v1/transfers", params=query)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_query")
    assert answer.json()["message"].endswith(".")


def test_pages_come_oldest_update_first_and_end_with_a_null_cursor(small_pages: BankProcess) -> None:
    with client_of(small_pages) as client:
        transfers = [sent(client) for _ in range(5)]
        small_pages.control.return_transfer(transfers[1]["id"])
        found = list(pages(client, {}))
    assert [len(page) for page in found] == [2, 2, 1]
    stamps = [transfer["updated_at"] for page in found for transfer in page]
    assert stamps == sorted(stamps)
    assert found[-1][-1]["id"] == transfers[1]["id"]


@pytest.mark.parametrize("repeat_filters", [True, False])
def test_a_cursor_keeps_its_filters_whether_or_not_they_are_repeated(
    small_pages: BankProcess, repeat_filters: bool
) -> None:
    with client_of(small_pages) as client:
        wanted = [sent(client, reference="wanted") for _ in range(3)]
        sent(client)
        found = list(pages(client, {"reference": "wanted"}, repeat_filters=repeat_filters))
    assert [transfer for page in found for transfer in page] == wanted


def test_a_cursor_of_another_search_is_refused(small_pages: BankProcess) -> None:
    with client_of(small_pages) as client:
        for _ in range(3):
            sent(client, reference="mine")
        cursor = client.get("/v1/transfers", params={"reference": "mine"}).json()["next_cursor"]
        answer = client.get("/v1/transfers", params={"reference": "yours", "cursor": cursor})
    assert answer.status_code == 422


def test_a_reader_of_the_feed_misses_nothing_that_changes_between_its_pages(small_pages: BankProcess) -> None:
    with client_of(small_pages) as client:
        transfers = [sent(client)["id"] for _ in range(6)]
        latest: dict[str, str] = {}
        for turn, page in enumerate(pages(client, {"updated_since": "2020-01-01T00:00:00Z"})):
            latest.update({transfer["id"]: transfer["status"] for transfer in page})
            if turn == 0:
                # One that was read already, one of the page's end, one that is still to come.
                for place in (0, 1, 4):
                    small_pages.control.return_transfer(transfers[place])
                transfers.append(sent(client)["id"])
        assert latest == {
            transfer_id: "returned" if place in (0, 1, 4) else "accepted" for place, transfer_id in enumerate(transfers)
        }


def test_one_transfer_is_read_by_its_id(client: httpx.Client) -> None:
    transfer = sent(client)
    assert client.get(f"/v1/transfers/{transfer['id']}").json() == transfer


def test_moments_are_utc_with_microseconds_and_no_two_updates_share_one(client: httpx.Client) -> None:
    stamps = [sent(client)["updated_at"] for _ in range(20)]
    assert len(set(stamps)) == 20
    assert all(len(stamp) == len("2026-01-01T00:00:00.000000Z") and stamp.endswith("Z") for stamp in stamps)
    assert abs(datetime.now(UTC) - datetime.fromisoformat(stamps[-1])) < timedelta(minutes=5)


@pytest.mark.parametrize("path", ["/v1/transfers/tr_unknown", "/v1/accounts/acct_unknown", "/v1/nothing", "/nothing"])
def test_what_is_not_there_is_a_404_problem(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_method_outside_the_contract_is_a_405_problem_that_names_the_right_ones(
    client: httpx.Client,
) -> None:
    answer = client.delete("/v1/transfers/tr_unknown")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert "GET" in answer.headers["Allow"]


def test_a_funding_account_shows_its_cents(client: httpx.Client) -> None:
    account = client.get("/v1/accounts/acct_escrow").json()
    assert set(account) == {"id", "available_cents", "currency"}
    assert (account["id"], account["currency"], type(account["available_cents"])) == (
        "acct_escrow",
        "USD",
        int,
    )
