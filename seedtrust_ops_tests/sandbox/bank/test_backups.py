"""A bank that is put back to an older copy of its books knows less than has happened."""

from pathlib import Path

import httpx
import pytest

from seedtrust_ops.sandbox.bank.process import start_bank
from seedtrust_ops_tests.sandbox.bank.bank_requests import (
    API_KEY,
    available_cents,
    body,
    client_of,
    fresh,
    movements,
    send,
)


def test_restored_bank_has_forgotten_what_came_after_the_backup_and_would_pay_it_again(database: Path) -> None:
    before, after, order = fresh("key"), fresh("key"), body()
    with start_bank(database, api_key=API_KEY) as bank, client_of(bank) as client:
        send(client, order, before)
        held = available_cents(client)
        bank.control.back_up("noon")
        send(client, order, after)

        bank.control.restore("noon")

        assert available_cents(client) == held
        assert [one["idempotency_key"] for one in bank.control.ledger()["transfers"]] == [before]
        # It happened all the same, and the journals say so.
        assert len(movements(bank, after)) == 1
        assert send(client, order, before).status_code == 200
        assert send(client, order, after).status_code == 201
        assert len(movements(bank, after)) == 2


def test_backup_outlives_the_bank_and_is_replaced_by_a_newer_one_of_its_name(database: Path) -> None:
    key = fresh("key")
    with start_bank(database, api_key=API_KEY) as bank:
        bank.control.back_up("noon")
    with start_bank(database, api_key=API_KEY) as bank, client_of(bank) as client:
        send(client, body(), key)
        bank.control.back_up("noon")
        bank.control.restore("noon")
        assert len(bank.control.ledger()["transfers"]) == 1


def test_bank_without_that_backup_says_so(database: Path) -> None:
    with start_bank(database, api_key=API_KEY) as bank, pytest.raises(httpx.HTTPStatusError, match="no backup"):
        bank.control.restore("noon")
