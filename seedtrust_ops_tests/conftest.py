"""Fixtures used by most tests: a real PostgreSQL server, a fresh database per test, the sandbox bank and mail server.

There is one server and one bank per test session. Every test's database has its own range of transaction ids, so that
no two tests share an idempotency key at the bank.
"""

import itertools
import os
import secrets
import shutil
import signal
import tempfile
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

from seedtrust_ops.config import ignore_running_sandbox
from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops.migrations.migrator import migrate
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops.sandbox.external_services.control_client import (
    InternalApiServer,
    PostHogServer,
    start_internal_api,
    start_posthog,
)
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess, start_mailbox
from seedtrust_ops_tests.support.dagster_homes import (
    DagsterHome,
    temporary_dagster_home,
    use_default_launcher,
)
from seedtrust_ops_tests.support.databases import (
    create_platform_schema,
    execute,
    postgres_folder,
    temporary_database,
    use_other_postgres,
)
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.tiers import Resource, provides

pytest_plugins = ["seedtrust_ops_tests.support.tier_plugin", "seedtrust_ops_tests.support.job_environment"]

TEMPLATE = "platform_template"
INTERNAL_API_KEY = "internal-key-1"
IDS_PER_TEST = 1_000_000
AMPLE_CENTS = 10**15
EMPTY_BOOKS = "empty"
_banks_with_empty_backup: set[str] = set()
MEMORY_FOLDER = Path("/dev/shm")
MIN_FREE_MEMORY_BYTES = 2 * 1024**3
"""A run leaves less than half of this behind at any time: a PostgreSQL server per xdist worker, and temporary files."""

_ENVIRONMENT = pytest.StashKey[dict[str, str]]()
_test_numbers = itertools.count(1)

# On a busy machine a slow example is not a failure.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--launcher` and `--postgres`, so that the suite can also run with Dagster's default launcher and others."""
    parser.addoption(
        "--launcher", choices=["warm", "default"], default="warm", help="the run launcher that daemons use in tests"
    )
    parser.addoption(
        "--postgres", metavar="FOLDER", type=Path, help="the programs of another PostgreSQL than the embedded one"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Apply the options, and restore SIGINT, which is ignored if a shell started pytest in the background.

    Child processes inherit an ignored SIGINT, and Dagster's code server could then not be stopped: it handles SIGTERM
    as SIGINT.
    """
    _keep_temporary_files_in_memory()
    # A developer may be running one.
    ignore_running_sandbox()
    if config.getoption("--launcher") == "default":
        use_default_launcher()
    if config.getoption("--postgres"):
        use_other_postgres(config.getoption("--postgres"))
    config.stash[_ENVIRONMENT] = dict(os.environ)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Fail the last test of a file that leaves environment variables changed, which fails some other file's tests."""
    result = yield
    if nextitem is None or nextitem.path != item.path:
        now, before = dict(os.environ), item.config.stash[_ENVIRONMENT]
        now.pop("PYTEST_CURRENT_TEST", None)
        changed = {name for name in now.keys() | before.keys() if now.get(name) != before.get(name)}
        for name in changed:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]
        if changed:
            pytest.fail(f"The tests of this file leave these variables changed: {sorted(changed)}.", pytrace=False)
    return result


def _keep_temporary_files_in_memory() -> None:
    """Put temporary files, and with them the PostgreSQL servers, into memory if the machine has a folder for that.

    Creating and dropping a database is creating and deleting 300 files. On a disk that was a quarter of the whole run's
    CPU. If TMPDIR is set, its folder is used.
    """
    if (
        "TMPDIR" not in os.environ
        and MEMORY_FOLDER.is_dir()
        and os.access(MEMORY_FOLDER, os.W_OK)
        and shutil.disk_usage(MEMORY_FOLDER).free >= MIN_FREE_MEMORY_BYTES
    ):
        os.environ["TMPDIR"] = str(MEMORY_FOLDER)
        tempfile.tempdir = None


@pytest.fixture(scope="session")
@provides(Resource.DATABASE)
def postgres_server() -> Iterator[URL]:
    """A PostgreSQL server for this session, with a template database created from platform_schema.sql."""
    with postgres_folder() as folder:
        server = embedded_postgres.start(folder / "d")
        control = create_engine(server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
        with control.connect() as connection:
            # No test needs the data to survive a power failure, and nearly every test creates and drops a database.
            for setting in ("fsync", "full_page_writes"):
                connection.execute(text(f"alter system set {setting} = off"))
            connection.execute(text("select pg_reload_conf()"))
        control.dispose()
        template = embedded_postgres.ensure_database(server, TEMPLATE)
        create_platform_schema(template)
        engine = create_engine(template)
        migrate(engine)
        engine.dispose()
        yield server
        embedded_postgres.stop(folder / "d")


@pytest.fixture
def database_url(postgres_server: URL) -> Iterator[URL]:
    """A fresh database with the platform's tables and schema `ops`; dropped afterwards."""
    first_id = next(_test_numbers) * IDS_PER_TEST
    with temporary_database(postgres_server, template=TEMPLATE) as url:
        execute(url, f"alter table huntington_transactions alter column id restart with {first_id}")
        yield url


@pytest.fixture
def sessions(database_url: URL) -> Iterator[sessionmaker[Session]]:
    """Sessions on the test's database, with production's engine."""
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
    """Creates users, cases, accounts, requests and batches in the test's database."""
    return Company(sessions, cipher)


@pytest.fixture(scope="session")
@provides(Resource.BANK)
def bank_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BankProcess]:
    directory: Path = tmp_path_factory.mktemp("bank")
    with start_bank(directory / "bank.sqlite", api_key=secrets.token_hex(16), available_cents=AMPLE_CENTS) as bank:
        yield bank


@pytest.fixture
def bank(bank_process: BankProcess) -> Iterator[BankProcess]:
    """The session's bank, with empty books, without injected faults and with ample funds.

    Transfers of other tests would be unknown here: this test's database has no transaction that explains them.
    """
    bank_process.control.clear_faults()
    if bank_process.url not in _banks_with_empty_backup:
        bank_process.control.back_up(EMPTY_BOOKS)
        _banks_with_empty_backup.add(bank_process.url)
    bank_process.control.restore(EMPTY_BOOKS)
    yield bank_process
    bank_process.control.clear_faults()
    bank_process.control.set_available_cents(AMPLE_CENTS)


@pytest.fixture
def bank_environment(
    set_variables: SetVariables, database_url: URL, bank: BankProcess, field_key: str
) -> dict[str, str]:
    """The environment of a production process: the test's database, its bank, its field key.

    Timeouts are long, so that a busy machine does not look like a bank that does not respond.
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
        # A sensor that a test evaluates directly returns at once.
        "SEEDTRUST_SENSOR_WAIT_SECONDS": "0",
    }
    set_variables(**variables)
    return variables


@pytest.fixture
@provides(Resource.INSTANCE)
def dagster_home(postgres_server: URL, tmp_path: Path) -> Iterator[DagsterHome]:
    """A DAGSTER_HOME with the project's dagster.yaml and its own storage database on the test server."""
    with temporary_dagster_home(postgres_server, tmp_path / "home") as home:
        yield home


@pytest.fixture
def instance(
    set_variables: SetVariables, dagster_home: DagsterHome, bank_environment: dict[str, str]
) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance at `dagster_home`, with the environment of `bank_environment`."""
    set_variables(**dagster_home.variables)
    with dg.DagsterInstance.get() as instance:
        yield instance


@pytest.fixture(scope="session")
@provides(Resource.PROCESS)
def internal_api_server() -> Iterator[InternalApiServer]:
    with start_internal_api(INTERNAL_API_KEY) as server:
        yield server


@pytest.fixture(scope="session")
@provides(Resource.PROCESS)
def posthog_server() -> Iterator[PostHogServer]:
    with start_posthog() as server:
        yield server


@pytest.fixture(scope="session")
@provides(Resource.PROCESS)
def mailbox_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailboxProcess]:
    with start_mailbox(tmp_path_factory.mktemp("mailbox") / "mailbox.sqlite") as mailbox:
        yield mailbox


@pytest.fixture
def mailbox(mailbox_process: MailboxProcess) -> Iterator[MailboxProcess]:
    """The session's mail server, without emails and injected faults."""
    mailbox_process.control.clear_faults()
    mailbox_process.control.empty()
    yield mailbox_process
    mailbox_process.control.clear_faults()


@pytest.fixture
def mail_environment(set_variables: SetVariables, mailbox: MailboxProcess) -> dict[str, str]:
    """Sets the mail server's variables; combine it with `bank_environment`."""
    set_variables(**mailbox.environment)
    return mailbox.environment
