"""What every contender stands on: one PostgreSQL, a company's database, the bank and the other servers, an environment.

Whatever is started here listens on loopback and ends with the block.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.orm import sessionmaker

from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops.migrations.migrator import migrate
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops.sandbox.external_services.server_group import start_outside_world
from seedtrust_ops.sandbox.mailbox.process import start_mailbox
from seedtrust_ops_tests.support.databases import create_platform, folder_for_a_server, own_database, plain
from seedtrust_ops_tests.support.factories import Company

REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True)
class Ground:
    """The servers and the company of one measurement."""

    server: URL
    application_url: URL
    bank: BankProcess
    company: Company
    environment: Mapping[str, str]
    folder: Path

    def queue(self, batch_ids: Sequence[int]) -> float:
        """Queue drafted batches in one transaction; return the moment just before its commit (UNIX time)."""
        with self.company.sessions() as session:
            session.execute(
                text("update huntington_batches set status = 'queued', queued_at = now() where id = any(:ids)"),
                {"ids": list(batch_ids)},
            )
            began = time.time()
            session.commit()
        return began


@contextmanager
def database_server() -> Iterator[URL]:
    """A PostgreSQL of the bench's own, with its default settings."""
    with folder_for_a_server() as folder:
        server = embedded_postgres.start(folder / "d")
        try:
            yield server.set(drivername="postgresql+psycopg")
        finally:
            embedded_postgres.stop(folder / "d")


@contextmanager
def ground(server: URL, *, latency_ms: float, **variables: str) -> Iterator[Ground]:
    """A company's database, a bank that takes `latency_ms` to answer, and the environment that names them."""
    key = Fernet.generate_key().decode()
    with (
        TemporaryDirectory(prefix="bench-") as name,
        own_database(server) as url,
        own_database(server) as dagster_url,
        start_bank(Path(name, "bank.sqlite"), api_key="bench", latency_ms=latency_ms, available_cents=10**15) as bank,
        start_mailbox(Path(name, "mailbox.sqlite")) as mailbox,
        start_outside_world(internal_api_key="bench") as outside,
    ):
        create_platform(url)
        engine = create_application_engine(url)
        migrate(engine)
        environment = {
            **os.environ,
            **mailbox.environment,
            **outside.environment,
            "PYTHONPATH": str(REPOSITORY),
            "SEEDTRUST_DATABASE_URL": plain(url),
            "DAGSTER_POSTGRES_URL": plain(dagster_url),
            "SEEDTRUST_FIELD_KEY": key,
            "HUNTINGTON_API_URL": bank.url,
            "HUNTINGTON_API_KEY": bank.api_key,
            "HUNTINGTON_FUNDING_ACCOUNT_ID": bank.funding_account_id,
            "DEV_ENV": "0",
            **variables,
        }
        company = Company(sessionmaker(engine, expire_on_commit=False), FernetFieldCipher([SecretStr(key)]))
        yield Ground(server, url, bank, company, environment, Path(name))
        engine.dispose()


@contextmanager
def program(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[psutil.Process]:
    """Run `python COMMAND` for as long as the block lasts; what it prints goes to `log`."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            env=dict(environment),
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            yield psutil.Process(process.pid)
        finally:
            started = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            try:
                process.wait(120)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            # Stock Dagster's code servers stay when their daemon ends in the middle of a run.
            for one in started:
                with suppress(psutil.NoSuchProcess):
                    one.kill()


def cpu_seconds(root: psutil.Process) -> float:
    """CPU seconds of a process and all that it ever started, as far as somebody collected them."""
    total = 0.0
    for process in [root, *root.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def wait_for(condition: Callable[[], object], seconds: float, what: str, *, every: float = 0.05) -> None:
    """Wait until the condition holds; raise after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"The bench waited {seconds:g} s in vain for {what}.")
        time.sleep(every)
