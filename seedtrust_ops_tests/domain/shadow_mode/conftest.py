"""A production process in shadow mode, with external servers that record every request."""

import pytest
from sqlalchemy import delete
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.sandbox.stack import ExternalServices
from seedtrust_ops.tables import Cutover
from seedtrust_ops_tests.deploy.conftest import APP, roles
from seedtrust_ops_tests.domain.shadow_mode.side_effects import RecordedSideEffects
from seedtrust_ops_tests.support.all_jobs import LONG_TIMEOUTS
from seedtrust_ops_tests.support.databases import plain_url
from seedtrust_ops_tests.support.environment import SetVariables

__all__ = ["roles"]


@pytest.fixture(autouse=True)
def legacy_worker_runs(sessions: sessionmaker[Session]) -> None:
    """No cutover: the legacy worker still sends."""
    with sessions.begin() as session:
        session.execute(delete(Cutover))


@pytest.fixture
def production(
    jobs_environment: dict[str, str],
    bank_environment: dict[str, str],
    mail_environment: dict[str, str],
    set_variables: SetVariables,
) -> None:
    """The environment of a production process whose jobs are live."""
    set_variables(**LONG_TIMEOUTS)


@pytest.fixture
def shadow_environment(production: None, set_variables: SetVariables) -> None:
    """The same, with every job in shadow mode."""
    set_variables(SEEDTRUST_SHADOW="1")


@pytest.fixture
def shadow_environment_as_app(shadow_environment: None, roles: URL, set_variables: SetVariables) -> None:
    """The same, with the database user that production has."""
    set_variables(SEEDTRUST_DATABASE_URL=plain_url(roles.set(username=APP)))


@pytest.fixture
def servers(bank: BankProcess, mailbox: MailboxProcess, external_services: ExternalServices) -> RecordedSideEffects:
    return RecordedSideEffects(bank, mailbox, external_services)
