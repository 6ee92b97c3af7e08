"""The control endpoints do to the books what happens to real ones: settlement, returns, rejections, legacy work."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops_tests.sandbox.bank.bank_requests import (
    API_KEY,
    available_cents,
    body,
    client_of,
    fresh,
    movements,
    send,
    sent,
)


def test_an_ach_settles_when_its_time_has_come_and_the_feed_shows_that_moment(database: Path) -> None:
    with (
        start_bank(database, api_key=API_KEY, ach_settlement_seconds=3_600) as bank,
        client_of(bank) as client,
    ):
        transfer = sent(client)
        bank.control.set_clock(3_500)
        assert client.get(f"/v1/transfers/{transfer['id']}").json() == transfer
        bank.control.set_clock(3_601)
        feed = client.get("/v1/transfers", params={"updated_since": transfer["updated_at"]}).json()["data"]
    (settled,) = feed
    assert settled["status"] == "completed"
    settled_after = datetime.fromisoformat(settled["updated_at"]) - datetime.fromisoformat(transfer["created_at"])
    assert settled_after == timedelta(hours=1)


def test_the_clock_never_goes_back(database: Path) -> None:
    with start_bank(database, api_key=API_KEY) as bank:
        bank.control.set_clock(86_400)
        with pytest.raises(httpx.HTTPStatusError, match="only goes forward"):
            bank.control.set_clock(0)


def test_everything_accepted_can_be_settled_at_once(bank: BankProcess, client: httpx.Client) -> None:
    transfer = sent(client)
    assert bank.control.settle() >= 1
    settled = client.get(f"/v1/transfers/{transfer['id']}").json()
    assert settled["status"] == "completed"
    assert settled["updated_at"] > transfer["updated_at"]


@pytest.mark.parametrize("settled", [False, True], ids=["accepted", "completed"])
def test_a_returned_ach_says_why_and_gives_its_money_back(
    bank: BankProcess, client: httpx.Client, settled: bool
) -> None:
    before = available_cents(client)
    transfer = sent(client)
    if settled:
        bank.control.settle()
    bank.control.return_transfer(transfer["id"], "R03")
    now = client.get(f"/v1/transfers/{transfer['id']}").json()
    assert (now["status"], now["return_code"]) == ("returned", "R03")
    assert now["updated_at"] > transfer["updated_at"]
    assert available_cents(client) == before


def test_a_rejected_ach_says_why_and_gives_its_money_back(bank: BankProcess, client: httpx.Client) -> None:
    before = available_cents(client)
    transfer = sent(client)
    bank.control.reject_reference(transfer["reference"], "Stopped by compliance.")
    now = client.get(f"/v1/transfers/{transfer['id']}").json()
    assert (now["status"], now["reason"], now["return_code"]) == ("rejected", "Stopped by compliance.", None)
    assert available_cents(client) == before


def test_money_comes_back_only_once(bank: BankProcess, client: httpx.Client) -> None:
    transfer = sent(client)
    bank.control.return_reference(transfer["reference"])
    with pytest.raises(httpx.HTTPStatusError, match="Only an accepted or completed ACH"):
        bank.control.return_transfer(transfer["id"])
    assert [moved["direction"] for moved in movements(bank, transfer["idempotency_key"])] == ["out", "back"]


def test_a_wire_is_neither_returned_nor_rejected(bank: BankProcess, client: httpx.Client) -> None:
    transfer = sent(client, method="wire")
    with pytest.raises(httpx.HTTPStatusError, match="completed wire"):
        bank.control.return_transfer(transfer["id"])
    with pytest.raises(httpx.HTTPStatusError, match="Only an accepted transfer"):
        bank.control.reject_transfer(transfer["id"], "Too late.")


def test_a_reference_that_two_transfers_bear_names_neither(bank: BankProcess, client: httpx.Client) -> None:
    reference = sent(client)["reference"]
    sent(client, reference=reference)
    with pytest.raises(httpx.HTTPStatusError, match="2 transfers bear this reference"):
        bank.control.return_reference(reference)


def test_a_planted_transfer_looks_like_any_other_and_has_moved_its_money(
    bank: BankProcess, client: httpx.Client
) -> None:
    before, reference = available_cents(client), fresh("legacy")
    made_at = datetime.now(UTC) - timedelta(days=9)
    planted = bank.control.plant_transfer(reference, 7_700, method="ach", created_at=made_at)
    (found,) = client.get("/v1/transfers", params={"reference": reference}).json()["data"]
    assert found == planted
    assert (found["status"], datetime.fromisoformat(found["created_at"])) == ("completed", made_at)
    assert available_cents(client) == before - 7_700


def test_a_planted_transfer_can_be_in_every_state(bank: BankProcess, client: httpx.Client) -> None:
    before = available_cents(client)
    returned = bank.control.plant_transfer(fresh(), 100, status="returned", return_code="R10")
    rejected = bank.control.plant_transfer(fresh(), 100, status="rejected", reason="Unknown payee.")
    accepted = bank.control.plant_transfer(fresh(), 100, status="accepted")
    assert (returned["return_code"], rejected["reason"], accepted["status"]) == (
        "R10",
        "Unknown payee.",
        "accepted",
    )
    assert available_cents(client) == before - 100


def test_a_transfer_that_could_not_have_been_made_cannot_be_planted(bank: BankProcess) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="future"):
        bank.control.plant_transfer(fresh(), 100, created_at=datetime.now(UTC) + timedelta(hours=1))
    with pytest.raises(httpx.HTTPStatusError, match="return_code"):
        bank.control.plant_transfer(fresh(), 100, status="returned", return_code="R1x")


def test_the_key_of_a_planted_transfer_is_taken(bank: BankProcess, client: httpx.Client) -> None:
    key = fresh("legacy-key")
    bank.control.plant_transfer(fresh(), 100, idempotency_key=key)
    assert send(client, body(), key).status_code == 409
    with pytest.raises(httpx.HTTPStatusError, match="has this idempotency key"):
        bank.control.plant_transfer(fresh(), 100, idempotency_key=key)


def test_a_bank_that_lost_a_key_pays_again_and_the_books_tell(bank: BankProcess, client: httpx.Client) -> None:
    key, request = fresh("key"), body()
    send(client, request, key)
    bank.control.forget(key)
    assert client.get("/v1/transfers", params={"idempotency_key": key}).json()["data"] == []
    assert send(client, request, key).status_code == 201
    totals = bank.control.totals()
    assert key in totals["keys_paid_more_than_once"]
    assert request["reference"] in totals["references_paid_more_than_once"]


def test_the_books_balance_to_the_cent(database: Path) -> None:
    with start_bank(database, api_key=API_KEY, available_cents=50_000) as bank, client_of(bank) as client:
        for amount in (1_000, 2_000, 3_000):
            sent(client, amount_cents=amount, reference=f"of-{amount}")
        bank.control.return_reference("of-2000")
        totals = bank.control.totals()
    assert (totals["out_cents"], totals["back_cents"]) == (6_000, 2_000)
    assert totals["accounts"] == [{"id": "acct_escrow", "opening_cents": 50_000, "available_cents": 46_000}]
    assert totals["by_status"]["returned"] == {"transfers": 1, "cents": 2_000}
    assert totals["keys_paid_more_than_once"] == totals["references_paid_more_than_once"] == []


def test_every_request_is_journaled_with_what_became_of_it(bank: BankProcess, client: httpx.Client) -> None:
    key, request = fresh("key"), body(amount_cents=4_321)
    bank.control.order_fault("error_after_commit", idempotency_key=key, status=502)
    send(client, request, key)
    client.get("/v1/transfers", params={"idempotency_key": key})
    post, get = [seen for seen in bank.control.requests() if seen["idempotency_key"] == key]
    assert (post["method"], post["path"], post["status"]) == ("POST", "/v1/transfers", 502)
    assert (post["reference"], post["amount_cents"]) == (request["reference"], 4_321)
    assert post["fault"] == "error_after_commit"
    assert (get["method"], get["query"], get["status"], get["fault"]) == (
        "GET",
        f"idempotency_key={key}",
        200,
        None,
    )


def test_a_malformed_control_call_says_what_is_wrong(client: httpx.Client) -> None:
    answer = client.post("/sandbox/faults", json={"kind": "earthquake"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_control")
    assert "kind" in answer.json()["message"]
