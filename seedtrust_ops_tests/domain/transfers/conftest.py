"""The fixture for a transfer worker on the test's own database and the session's bank."""

import pytest

from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker, options_for, settings_for
from seedtrust_ops_tests.support.factories import Company


@pytest.fixture
def worker(company: Company, bank: BankProcess) -> Worker:
    return Worker(company, bank, settings_for(bank), options_for(bank))
