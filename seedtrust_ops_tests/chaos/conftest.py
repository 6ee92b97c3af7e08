"""The chaos tests' environment: the session's own PostgreSQL and mail server, and a fresh bank for each case."""

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import URL

from seedtrust_ops.migrations.migrator import migrate
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops_tests.chaos.bank_pool import BankPool, serve_bank_pool
from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.conftest import TEMPLATE
from seedtrust_ops_tests.support.databases import temporary_database
from seedtrust_ops_tests.support.tiers import Resource, provides


@pytest.fixture(scope="session")
@provides(Resource.PROCESS)
def environment(
    postgres_server: URL,
    mailbox_process: MailboxProcess,
    field_key: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ChaosEnvironment]:
    folder = tmp_path_factory.mktemp("chaos")
    with temporary_database(postgres_server, template=TEMPLATE) as url, serve_bank_pool(folder) as banks:
        # As `make chaos` does: some cases have batches of the legacy worker, which ends with the cutover.
        engine = create_engine(url)
        migrate(engine, legacy_worker_runs=True)
        engine.dispose()
        yield ChaosEnvironment(postgres_server, str(url.database), banks, mailbox_process, field_key, folder)


@pytest.fixture(scope="session")
@provides(Resource.BANK)
def bank_pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BankPool]:
    with serve_bank_pool(tmp_path_factory.mktemp("banks")) as banks:
        yield banks


@pytest.fixture
def own_bank(bank_pool: BankPool) -> BankPool:
    """A bank that only this test has used."""
    bank_pool.replace_bank()
    return bank_pool
