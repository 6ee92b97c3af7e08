"""A production process that is in shadow, beside servers of which every request is known."""

import pytest
from sqlalchemy.engine import URL

from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.sandbox.external_services.server_group import OutsideWorld
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops_tests.deploy.conftest import APP, roles
from seedtrust_ops_tests.domain.shadow_mode.side_effects import Outside
from seedtrust_ops_tests.support.databases import plain
from seedtrust_ops_tests.support.every_job import PATIENCE
from seedtrust_ops_tests.support.job_environment import Change, change, jobs_environment, outside, outside_servers

__all__ = ["change", "jobs_environment", "outside", "outside_servers", "roles"]


@pytest.fixture
def production(
    jobs_environment: dict[str, str], bank_environment: dict[str, str], mail_environment: dict[str, str], change: Change
) -> None:
    """The environment of a production process whose jobs are live."""
    change(**PATIENCE)


@pytest.fixture
def in_shadow(production: None, change: Change) -> None:
    """The same, with every job in shadow."""
    change(SEEDTRUST_SHADOW="1")


@pytest.fixture
def in_shadow_as_app(in_shadow: None, roles: URL, change: Change) -> None:
    """The same, with the database user that production has."""
    change(SEEDTRUST_DATABASE_URL=plain(roles.set(username=APP)))


@pytest.fixture
def servers(bank: BankProcess, mailbox: MailboxProcess, outside: OutsideWorld) -> Outside:
    return Outside(bank, mailbox, outside)
