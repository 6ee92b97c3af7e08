"""A running sandbox bank for these tests: one process for all of them, with faults cleared before each test."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops_tests.sandbox.bank.bank_requests import API_KEY, client_for
from seedtrust_ops_tests.support.tiers import Resource, provides


@pytest.fixture(scope="session")
@provides(Resource.PROCESS)
def shared_bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BankProcess]:
    database = tmp_path_factory.mktemp("bank") / "bank.sqlite"
    # Enough for any number of transfers of the largest amount in the contract.
    with start_bank(database, api_key=API_KEY, available_cents=10**15) as running:
        yield running


@pytest.fixture
def bank(shared_bank: BankProcess) -> BankProcess:
    shared_bank.control.clear_faults()
    return shared_bank


@pytest.fixture
def client(bank: BankProcess) -> Iterator[httpx.Client]:
    with client_for(bank) as client:
        yield client


@pytest.fixture
@provides(Resource.PROCESS)
def database(tmp_path: Path) -> Path:
    """The path of the file for a test that starts its own bank."""
    return tmp_path / "bank.sqlite"
