"""What most tests stand on: a real PostgreSQL, a database of their own made from the platform's SQL file, a real bank.

One server and one bank a test session; every test gets a fresh database whose transaction ids are its own, so
that no two tests ever share an idempotency key at the bank.
"""

import itertools
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from cryptography.fernet import Fernet
from hypothesis import settings
from pydantic import SecretStr
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import get_settings
from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.database.engine import application_engine, create_application_engine
from seedtrust_ops.migrations.migrator import migrate
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess, start_mailbox
from seedtrust_ops_tests.support.dagster_homes import (
    DagsterHome,
    dagster_home_of_its_own,
    instance_of,
    use_default_launcher,
)
from seedtrust_ops_tests.support.databases import create_platform, folder_for_a_server
from seedtrust_ops_tests.support.factories import Company

TEMPLATE = "platform_template"
IDS_A_TEST = 1_000_000

_test_numbers = itertools.count(1)

# An example that takes long on a machine that stands still for a moment is no counterexample.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the suite run with Dagster's own launcher too."""
    parser.addoption("--launcher", choices=["warm", "default"], default="warm", help="what starts the runs of daemons")


def pytest_configure(config: pytest.Config) -> None:
    """Take the launcher, and hear Ctrl-C: a shell that starts us in the background has us ignore it.

    Dagster's code server takes SIGTERM for the same signal, and could not be stopped then.
    """
    if config.getoption("--launcher") == "default":
        use_default_launcher()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes minutes."""
    items.sort(key=lambda item: item.get_closest_marker("takes_minutes") is None)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """A PostgreSQL of this session's own, with a template database made from platform_schema.sql by the driver."""
    with folder_for_a_server() as folder:
        server = embedded_postgres.start(folder / "d")
        control = create_engine(server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
        with control.connect() as connection:
            # No test cuts the machine's power, and a database is made and dropped for nearly every one of them.
            for setting in ("fsync", "full_page_writes"):
                connection.execute(text(f"alter system set {setting} = off"))
            connection.execute(text("select pg_reload_conf()"))
        control.dispose()
        template = embedded_postgres.ensure_database(server, TEMPLATE)
        create_platform(template)
        engine = create_engine(template)
        migrate(engine)
        engine.dispose()
        yield server
        embedded_postgres.stop(folder / "d")


@pytest.fixture
def database_url(postgres_server: URL) -> Iterator[URL]:
    """A fresh database with the platform's tables and schema `ops`; dropped afterwards."""
    number = next(_test_numbers)
    name = f"test_{number}_{secrets.token_hex(4)}"
    url = postgres_server.set(drivername="postgresql+psycopg", database=name)
    control = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with control.connect() as connection:
        connection.execute(text(f"create database {name} template {TEMPLATE}"))
    fresh = create_engine(url)
    with fresh.begin() as connection:
        connection.execute(
            text(f"alter table huntington_transactions alter column id restart with {number * IDS_A_TEST}")
        )
    fresh.dispose()
    yield url
    with control.connect() as connection:
        connection.execute(text(f"drop database {name} with (force)"))
    control.dispose()


@pytest.fixture
def sessions(database_url: URL) -> Iterator[sessionmaker[Session]]:
    """Sessions on the test's database, through the product's own engine."""
    engine = create_application_engine(database_url)
    yield sessionmaker(engine, expire_on_commit=False)
    engine.dispose()


@pytest.fixture(scope="session")
def field_key() -> str:
    return Fernet.generate_key().decode()


@pytest.fixture
def cipher(field_key: str) -> FernetFieldCipher:
    return FernetFieldCipher([SecretStr(field_key)])


@pytest.fixture
def company(sessions: sessionmaker[Session], cipher: FernetFieldCipher) -> Company:
    """Builds users, cases, accounts, requests and batches in the test's database."""
    return Company(sessions, cipher)


@pytest.fixture(scope="session")
def bank_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BankProcess]:
    directory: Path = tmp_path_factory.mktemp("bank")
    with start_bank(directory / "bank.sqlite", api_key=secrets.token_hex(16), available_cents=10**15) as bank:
        yield bank


@pytest.fixture
def bank(bank_process: BankProcess) -> Iterator[BankProcess]:
    """The session's bank, with no faults ordered."""
    bank_process.control.clear_faults()
    yield bank_process
    bank_process.control.clear_faults()


@pytest.fixture
def bank_environment(
    monkeypatch: pytest.MonkeyPatch, database_url: URL, bank: BankProcess, field_key: str
) -> Iterator[dict[str, str]]:
    """The environment of a production process: the test's database, its bank, its field key.

    Patience is long, so that a machine that stands still for a moment is no bank that gives no answer.
    """
    variables = {
        "SEEDTRUST_DATABASE_URL": database_url.set(drivername="postgresql").render_as_string(hide_password=False),
        "SEEDTRUST_FIELD_KEY": field_key,
        "HUNTINGTON_API_URL": bank.url,
        "HUNTINGTON_API_KEY": bank.api_key,
        "HUNTINGTON_FUNDING_ACCOUNT_ID": bank.funding_account_id,
        "HUNTINGTON_TIMEOUT_SECONDS": "30",
        "HUNTINGTON_LEASE_SECONDS": "60",
        "HUNTINGTON_UNKNOWN_GRACE_SECONDS": "0",
        # A sensor that a test asks by hand answers at once.
        "SEEDTRUST_SENSOR_WAIT_SECONDS": "0",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    application_engine.cache_clear()
    yield variables
    if application_engine.cache_info().currsize:
        application_engine().dispose()
    get_settings.cache_clear()
    application_engine.cache_clear()


@pytest.fixture
def dagster_home(postgres_server: URL, tmp_path: Path) -> Iterator[DagsterHome]:
    """A DAGSTER_HOME with the project's dagster.yaml and a storage of its own on the test server."""
    with dagster_home_of_its_own(postgres_server, tmp_path / "home") as home:
        yield home


@pytest.fixture
def instance(dagster_home: DagsterHome, bank_environment: dict[str, str]) -> Iterator[dg.DagsterInstance]:
    """The instance at that home, beside the application's database."""
    with instance_of(dagster_home) as instance:
        yield instance


@pytest.fixture(scope="session")
def mailbox_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailboxProcess]:
    with start_mailbox(tmp_path_factory.mktemp("mailbox") / "mailbox.sqlite") as mailbox:
        yield mailbox


@pytest.fixture
def mailbox(mailbox_process: MailboxProcess) -> Iterator[MailboxProcess]:
    """The session's mail server, with no letters in it and no trouble ordered."""
    mailbox_process.control.clear_orders()
    mailbox_process.control.empty()
    yield mailbox_process
    mailbox_process.control.clear_orders()


@pytest.fixture
def mail_environment(monkeypatch: pytest.MonkeyPatch, mailbox: MailboxProcess) -> Iterator[dict[str, str]]:
    """The variables of the mail server, set; they go well with `bank_environment`."""
    for name, value in mailbox.environment.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    yield mailbox.environment
    get_settings.cache_clear()
