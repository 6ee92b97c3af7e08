"""The control endpoints settle, return, reject, insert and restore transfers as a real bank's back office would."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from seedtrust_ops.sandbox.bank.control_client import ODD_ROWS
from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops_tests.sandbox.bank.bank_requests import (
    API_KEY,
    available_cents,
    body,
    client_for,
    create_transfer,
    movements,
    send,
    transfers,
    unique,
)


def test_ach_settles_on_time_and_the_feed_shows_when(database: Path) -> None:
    with (
        start_bank(database, api_key=API_KEY, ach_settlement_seconds=3_600) as bank,
        client_for(bank) as client,
    ):
        transfer = create_transfer(client)
        bank.control.set_clock(3_500)
        assert client.get(f"/v1/transfers/{transfer['id']}").json() == transfer
        bank.control.set_clock(3_601)
        feed = client.get("/v1/transfers", params={"updated_since": transfer["updated_at"]}).json()["data"]
    (settled,) = feed
    assert settled["status"] == "completed"
    settled_after = datetime.fromisoformat(settled["updated_at"]) - datetime.fromisoformat(transfer["created_at"])
    assert settled_after == timedelta(hours=1)


def test_clock_cannot_be_set_back(database: Path) -> None:
    with start_bank(database, api_key=API_KEY) as bank:
        bank.control.set_clock(86_400)
        with pytest.raises(httpx.HTTPStatusError, match="can only move forward"):
            bank.control.set_clock(0)


def test_settle_completes_all_accepted_transfers(bank: BankProcess, client: httpx.Client) -> None:
    transfer = create_transfer(client)
    assert bank.control.settle() >= 1
    settled = client.get(f"/v1/transfers/{transfer['id']}").json()
    assert settled["status"] == "completed"
    assert settled["updated_at"] > transfer["updated_at"]


@pytest.mark.parametrize("settled", [False, True], ids=["accepted", "completed"])
def test_returned_ach_has_its_code_and_refunds_the_money(
    bank: BankProcess, client: httpx.Client, settled: bool
) -> None:
    before = available_cents(client)
    transfer = create_transfer(client)
    if settled:
        bank.control.settle()
    bank.control.return_transfer(transfer["id"], "R03")
    now = client.get(f"/v1/transfers/{transfer['id']}").json()
    assert (now["status"], now["return_code"]) == ("returned", "R03")
    assert now["updated_at"] > transfer["updated_at"]
    assert available_cents(client) == before


def test_rejected_ach_has_its_reason_and_refunds_the_money(bank: BankProcess, client: httpx.Client) -> None:
    before = available_cents(client)
    transfer = create_transfer(client)
    bank.control.reject_reference(transfer["reference"], "Stopped by compliance.")
    now = client.get(f"/v1/transfers/{transfer['id']}").json()
    assert (now["status"], now["reason"], now["return_code"]) == ("rejected", "Stopped by compliance.", None)
    assert available_cents(client) == before


def test_transfer_cannot_be_returned_twice(bank: BankProcess, client: httpx.Client) -> None:
    transfer = create_transfer(client)
    bank.control.return_reference(transfer["reference"])
    with pytest.raises(httpx.HTTPStatusError, match="Only an accepted or completed ACH"):
        bank.control.return_transfer(transfer["id"])
    assert [moved["direction"] for moved in movements(bank, transfer["idempotency_key"])] == ["out", "back"]


def test_wire_can_be_neither_returned_nor_rejected(bank: BankProcess, client: httpx.Client) -> None:
    transfer = create_transfer(client, method="wire")
    with pytest.raises(httpx.HTTPStatusError, match="completed wire"):
        bank.control.return_transfer(transfer["id"])
    with pytest.raises(httpx.HTTPStatusError, match="Only an accepted transfer"):
        bank.control.reject_transfer(transfer["id"], "Too late.")


def test_ambiguous_reference_is_an_error(bank: BankProcess, client: httpx.Client) -> None:
    reference = create_transfer(client)["reference"]
    create_transfer(client, reference=reference)
    with pytest.raises(httpx.HTTPStatusError, match="2 transfers have this reference"):
        bank.control.return_reference(reference)


def test_inserted_transfer_looks_like_any_other_and_moves_money(bank: BankProcess, client: httpx.Client) -> None:
    before, reference = available_cents(client), unique("legacy")
    created_at = datetime.now(UTC) - timedelta(days=9)
    inserted = bank.control.insert_transfer(reference, 7_700, method="ach", created_at=created_at)
    (found,) = client.get("/v1/transfers", params={"reference": reference}).json()["data"]
    assert found == inserted
    assert (found["status"], datetime.fromisoformat(found["created_at"])) == ("completed", created_at)
    assert available_cents(client) == before - 7_700


def test_inserted_transfer_can_have_any_status(bank: BankProcess, client: httpx.Client) -> None:
    before = available_cents(client)
    returned = bank.control.insert_transfer(unique(), 100, status="returned", return_code="R10")
    rejected = bank.control.insert_transfer(unique(), 100, status="rejected", reason="Unknown payee.")
    accepted = bank.control.insert_transfer(unique(), 100, status="accepted")
    assert (returned["return_code"], rejected["reason"], accepted["status"]) == (
        "R10",
        "Unknown payee.",
        "accepted",
    )
    assert available_cents(client) == before - 100


def test_impossible_transfer_cannot_be_inserted(bank: BankProcess) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="future"):
        bank.control.insert_transfer(unique(), 100, created_at=datetime.now(UTC) + timedelta(hours=1))
    with pytest.raises(httpx.HTTPStatusError, match="return_code"):
        bank.control.insert_transfer(unique(), 100, status="returned", return_code="R1x")


def test_key_of_an_inserted_transfer_is_in_use(bank: BankProcess, client: httpx.Client) -> None:
    key = unique("legacy-key")
    bank.control.insert_transfer(unique(), 100, idempotency_key=key)
    assert send(client, body(), key).status_code == 409
    with pytest.raises(httpx.HTTPStatusError, match="already in use"):
        bank.control.insert_transfer(unique(), 100, idempotency_key=key)


def test_lost_key_is_paid_again_and_shows_in_the_totals(bank: BankProcess, client: httpx.Client) -> None:
    key, request = unique("key"), body()
    send(client, request, key)
    bank.control.forget_key(key)
    assert client.get("/v1/transfers", params={"idempotency_key": key}).json()["data"] == []
    assert send(client, request, key).status_code == 201
    totals = bank.control.totals()
    assert key in totals["keys_paid_more_than_once"]
    assert request["reference"] in totals["references_paid_more_than_once"]


@pytest.mark.parametrize("name", ODD_ROWS)
def test_misreported_transfer_is_odd_everywhere_but_in_the_ledger(
    bank: BankProcess, client: httpx.Client, name: str
) -> None:
    key, request = unique("key"), body()
    bank.control.misreport(request["reference"], ODD_ROWS[name])
    answer = send(client, request, key).json()
    (by_key,) = client.get("/v1/transfers", params={"idempotency_key": key}).json()["data"]
    (truth,) = transfers(bank, key)
    true_fields = {field: value for field, value in truth.items() if field != "inserted"}
    assert answer == by_key == true_fields | ODD_ROWS[name]
    assert by_key != true_fields

    bank.control.report_truly(request["reference"])
    assert client.get(f"/v1/transfers/{truth['id']}").json() == true_fields


def test_cleared_faults_end_all_misreports(bank: BankProcess, client: httpx.Client) -> None:
    transfer = create_transfer(client)
    bank.control.misreport(transfer["reference"], {"currency": "EUR"})
    assert client.get(f"/v1/transfers/{transfer['id']}").json()["currency"] == "EUR"
    bank.control.clear_faults()
    assert client.get(f"/v1/transfers/{transfer['id']}").json() == transfer


def test_unknown_transfer_is_in_the_feed_and_moved_money(bank: BankProcess, client: httpx.Client) -> None:
    before = available_cents(client)
    since = create_transfer(client, amount_cents=1)["updated_at"]
    unknown = [bank.control.add_unknown_transfer(), bank.control.add_unknown_transfer("987654321", 700, method="ach")]
    feed = client.get("/v1/transfers", params={"updated_since": since}).json()["data"]
    assert feed[1:] == unknown
    assert available_cents(client) == before - 1 - 4_999_900 - 700


def test_overdrawing_transfer_is_refused_until_funded(database: Path) -> None:
    with start_bank(database, api_key=API_KEY) as bank, client_for(bank) as client:
        bank.control.set_available_cents(1_000)
        assert send(client, body(amount_cents=600, reference="paid")).status_code == 201
        refused = send(client, body(amount_cents=600), "a-key-that-is-spent")
        assert (refused.status_code, refused.json()["code"]) == (422, "insufficient_funds")

        bank.control.return_reference("paid")
        bank.control.set_available_cents(599)
        with pytest.raises(httpx.HTTPStatusError, match="balance is too low"):
            bank.control.dishonor_reference("paid")
        bank.control.set_available_cents(600)
        assert send(client, body(amount_cents=600)).status_code == 201
        (account,) = bank.control.totals()["accounts"]
    assert account == {"id": "acct_escrow", "opening_cents": 600, "available_cents": 0}


def test_totals_balance_to_the_cent(database: Path) -> None:
    with start_bank(database, api_key=API_KEY, available_cents=50_000) as bank, client_for(bank) as client:
        for amount in (1_000, 2_000, 3_000):
            create_transfer(client, amount_cents=amount, reference=f"of-{amount}")
        bank.control.return_reference("of-2000")
        totals = bank.control.totals()
    assert (totals["out_cents"], totals["back_cents"]) == (6_000, 2_000)
    assert totals["accounts"] == [{"id": "acct_escrow", "opening_cents": 50_000, "available_cents": 46_000}]
    assert totals["by_status"]["returned"] == {"transfers": 1, "cents": 2_000}
    assert totals["keys_paid_more_than_once"] == totals["references_paid_more_than_once"] == []


def test_every_request_is_journaled_with_its_fault_and_status(bank: BankProcess, client: httpx.Client) -> None:
    key, request = unique("key"), body(amount_cents=4_321)
    bank.control.inject_fault("error_after_commit", idempotency_key=key, status=502)
    send(client, request, key)
    client.get("/v1/transfers", params={"idempotency_key": key})
    post, get = [logged for logged in bank.control.requests() if logged["idempotency_key"] == key]
    assert (post["method"], post["path"], post["status"]) == ("POST", "/v1/transfers", 502)
    assert (post["reference"], post["amount_cents"]) == (request["reference"], 4_321)
    assert post["fault"] == "error_after_commit"
    assert (get["method"], get["query"], get["status"], get["fault"]) == (
        "GET",
        f"idempotency_key={key}",
        200,
        None,
    )


def test_malformed_control_request_names_the_bad_field(client: httpx.Client) -> None:
    response = client.post("/sandbox/faults", json={"kind": "earthquake"})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_control")
    assert "kind" in response.json()["message"]


def test_restored_bank_pays_later_transfers_again(database: Path) -> None:
    before, after, request = unique("key"), unique("key"), body()
    with start_bank(database, api_key=API_KEY) as bank, client_for(bank) as client:
        send(client, request, before)
        balance = available_cents(client)
        bank.control.back_up("noon")
        send(client, request, after)

        bank.control.restore("noon")

        assert available_cents(client) == balance
        assert [transfer["idempotency_key"] for transfer in bank.control.ledger()["transfers"]] == [before]
        # It did happen, and the journal still has it.
        assert len(movements(bank, after)) == 1
        assert send(client, request, before).status_code == 200
        assert send(client, request, after).status_code == 201
        assert len(movements(bank, after)) == 2


def test_backup_survives_a_restart_and_is_replaced_by_name(database: Path) -> None:
    key = unique("key")
    with start_bank(database, api_key=API_KEY) as bank:
        bank.control.back_up("noon")
    with start_bank(database, api_key=API_KEY) as bank, client_for(bank) as client:
        send(client, body(), key)
        bank.control.back_up("noon")
        bank.control.restore("noon")
        assert len(bank.control.ledger()["transfers"]) == 1


def test_restore_of_a_missing_backup_fails(database: Path) -> None:
    with start_bank(database, api_key=API_KEY) as bank, pytest.raises(httpx.HTTPStatusError, match="no backup"):
        bank.control.restore("noon")
