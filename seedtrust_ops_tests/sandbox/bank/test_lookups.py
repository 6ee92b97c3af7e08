"""The GET endpoints keep the contract: filters, the order of the feed, and cursors that never skip a transfer."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops_tests.sandbox.bank.bank_requests import API_KEY, body, client_for, create_transfer, send, unique


@pytest.fixture
def bank_with_small_pages(database: Path) -> Iterator[BankProcess]:
    with start_bank(database, api_key=API_KEY, page_size=2) as bank:
        yield bank


def pages(client: httpx.Client, params: dict[str, Any], *, repeat_filters: bool = True) -> Iterator[list[Any]]:
    page = client.get("/v1/transfers", params=params).json()
    yield page["data"]
    while page["next_cursor"] is not None:
        params = {**(params if repeat_filters else {}), "cursor": page["next_cursor"]}
        page = client.get("/v1/transfers", params=params).json()
        yield page["data"]


def test_known_key_is_found_and_unknown_key_is_absent(client: httpx.Client) -> None:
    key = unique("key")
    transfer = send(client, body(), key).json()
    page = client.get("/v1/transfers", params={"idempotency_key": [key, unique("key")]}).json()
    assert page == {"data": [transfer], "next_cursor": None}


def test_reference_finds_every_transfer_that_has_it(client: httpx.Client) -> None:
    reference = unique()
    expected = [create_transfer(client, reference=reference) for _ in range(2)]
    assert client.get("/v1/transfers", params={"reference": reference}).json()["data"] == expected


def test_filters_are_combined_with_and(client: httpx.Client) -> None:
    first, second = create_transfer(client), create_transfer(client)
    params = {"idempotency_key": first["idempotency_key"], "reference": second["reference"]}
    assert client.get("/v1/transfers", params=params).json()["data"] == []


@pytest.mark.parametrize("name", ["idempotency_key", "reference"])
def test_filter_accepts_100_values_and_refuses_101(client: httpx.Client, name: str) -> None:
    transfer = create_transfer(client)
    values = [transfer[name], *(unique() for _ in range(99))]
    assert client.get("/v1/transfers", params={name: values}).json()["data"] == [transfer]
    response = client.get("/v1/transfers", params={name: [*values, unique()]})
    assert response.status_code == 422
    assert "100" in response.json()["message"]


def test_updated_since_is_inclusive_to_the_microsecond(client: httpx.Client) -> None:
    first, second = create_transfer(client), create_transfer(client)
    since = client.get("/v1/transfers", params={"updated_since": first["updated_at"]}).json()["data"]
    assert since == [first, second]
    after = datetime.fromisoformat(first["updated_at"]) + timedelta(microseconds=1)
    with_local_offset = after.astimezone().isoformat()
    assert client.get("/v1/transfers", params={"updated_since": with_local_offset}).json()["data"] == [second]


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
        {"idempotency_keys": "misspelled"},
    ],
    ids=str,
)
def test_malformed_query_is_refused_with_a_problem(client: httpx.Client, query: dict[str, Any]) -> None:
    response = client.get("/v1/transfers", params=query)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_query")
    assert response.json()["message"].endswith(".")


def test_pages_are_oldest_update_first_and_end_with_null(bank_with_small_pages: BankProcess) -> None:
    with client_for(bank_with_small_pages) as client:
        transfers = [create_transfer(client) for _ in range(5)]
        bank_with_small_pages.control.return_transfer(transfers[1]["id"])
        found = list(pages(client, {}))
    assert [len(page) for page in found] == [2, 2, 1]
    timestamps = [transfer["updated_at"] for page in found for transfer in page]
    assert timestamps == sorted(timestamps)
    assert found[-1][-1]["id"] == transfers[1]["id"]


@pytest.mark.parametrize("repeat_filters", [True, False], ids=["repeated", "omitted"])
def test_cursor_keeps_its_filters_repeated_or_not(bank_with_small_pages: BankProcess, repeat_filters: bool) -> None:
    with client_for(bank_with_small_pages) as client:
        wanted = [create_transfer(client, reference="wanted") for _ in range(3)]
        create_transfer(client)
        found = list(pages(client, {"reference": "wanted"}, repeat_filters=repeat_filters))
    assert [transfer for page in found for transfer in page] == wanted


def test_cursor_of_another_search_is_refused(bank_with_small_pages: BankProcess) -> None:
    with client_for(bank_with_small_pages) as client:
        for _ in range(3):
            create_transfer(client, reference="mine")
        cursor = client.get("/v1/transfers", params={"reference": "mine"}).json()["next_cursor"]
        response = client.get("/v1/transfers", params={"reference": "yours", "cursor": cursor})
    assert response.status_code == 422


def test_feed_misses_nothing_that_changes_between_pages(bank_with_small_pages: BankProcess) -> None:
    with client_for(bank_with_small_pages) as client:
        transfers = [create_transfer(client)["id"] for _ in range(6)]
        latest: dict[str, str] = {}
        for turn, page in enumerate(pages(client, {"updated_since": "2020-01-01T00:00:00Z"})):
            latest.update({transfer["id"]: transfer["status"] for transfer in page})
            if turn == 0:
                # One that was already read, the last of the page, and one that is still to come.
                for position in (0, 1, 4):
                    bank_with_small_pages.control.return_transfer(transfers[position])
                transfers.append(create_transfer(client)["id"])
        assert latest == {
            transfer_id: "returned" if position in (0, 1, 4) else "accepted"
            for position, transfer_id in enumerate(transfers)
        }


def test_transfer_is_found_by_its_id(client: httpx.Client) -> None:
    transfer = create_transfer(client)
    assert client.get(f"/v1/transfers/{transfer['id']}").json() == transfer


def test_timestamps_are_unique_utc_microseconds(client: httpx.Client) -> None:
    timestamps = [create_transfer(client)["updated_at"] for _ in range(20)]
    assert len(set(timestamps)) == 20
    assert all(len(text) == len("2026-01-01T00:00:00.000000Z") and text.endswith("Z") for text in timestamps)
    assert abs(datetime.now(UTC) - datetime.fromisoformat(timestamps[-1])) < timedelta(minutes=5)


@pytest.mark.parametrize("path", ["/v1/transfers/tr_unknown", "/v1/accounts/acct_unknown", "/v1/nothing", "/nothing"])
def test_unknown_path_is_a_404_problem(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_unsupported_method_is_a_405_problem_with_allow_header(client: httpx.Client) -> None:
    response = client.delete("/v1/transfers/tr_unknown")
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert "GET" in response.headers["Allow"]


def test_funding_account_shows_its_available_cents(client: httpx.Client) -> None:
    account = client.get("/v1/accounts/acct_escrow").json()
    assert set(account) == {"id", "available_cents", "currency"}
    assert (account["id"], account["currency"], type(account["available_cents"])) == (
        "acct_escrow",
        "USD",
        int,
    )
