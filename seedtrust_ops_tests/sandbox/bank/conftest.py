"""A running sandbox bank for these tests: one process for all of them, its faults cleared before each."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops_tests.sandbox.bank.bank_requests import API_KEY, client_of


@pytest.fixture(scope="session")
def shared_bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BankProcess]:
    database = tmp_path_factory.mktemp("bank") / "bank.sqlite"
    # Enough for any number of the largest transfers that the contract allows.
    with start_bank(database, api_key=API_KEY, available_cents=10**15) as running:
        yield running


@pytest.fixture
def bank(shared_bank: BankProcess) -> BankProcess:
    shared_bank.control.clear_faults()
    return shared_bank


@pytest.fixture
def client(bank: BankProcess) -> Iterator[httpx.Client]:
    with client_of(bank) as client:
        yield client


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where a test that needs a bank of its own lets it keep its books."""
    return tmp_path / "bank.sqlite"
