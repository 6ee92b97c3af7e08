"""A bank restored from a backup loses the transfers made since, although they happened."""

from pathlib import Path

import httpx
import pytest

from seedtrust_ops.sandbox.bank.process import start_bank
from seedtrust_ops_tests.sandbox.bank.bank_requests import (
    API_KEY,
    available_cents,
    body,
    client_for,
    movements,
    send,
    unique,
)


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
