"""The ground of the chaos tests: the session's own PostgreSQL and mail server, and banks that are new for each case."""

from collections.abc import Iterator

import pytest
from sqlalchemy.engine import URL

from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops_tests.chaos.bank_pool import serve_fresh_banks
from seedtrust_ops_tests.chaos.environment import Ground
from seedtrust_ops_tests.conftest import TEMPLATE


@pytest.fixture(scope="session")
def ground(
    postgres_server: URL,
    mailbox_process: MailboxProcess,
    field_key: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("chaos")
    with serve_fresh_banks(folder) as banks:
        yield Ground(postgres_server, TEMPLATE, banks, mailbox_process, field_key, folder)
