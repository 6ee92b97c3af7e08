"""The environment that each system runs in: a PostgreSQL, a company's database, a bank and the other servers.

Everything started here listens on loopback only and is stopped at the end of the block.
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
from seedtrust_ops.sandbox.mailbox.process import start_mailbox
from seedtrust_ops.sandbox.stack import start_external_services
from seedtrust_ops_tests.support.databases import create_platform_schema, plain_url, postgres_folder, temporary_database
from seedtrust_ops_tests.support.factories import Company

REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True)
class BenchEnvironment:
    """The servers and the company of one measurement; `variables` are the environment variables that point to them."""

    server: URL
    application_url: URL
    bank: BankProcess
    company: Company
    variables: Mapping[str, str]
    folder: Path

    def queue(self, batch_ids: Sequence[int]) -> float:
        """Queue draft batches in one transaction; return the UNIX time just before its commit."""
        with self.company.sessions() as session:
            session.execute(
                text("update huntington_batches set status = 'queued', queued_at = now() where id = any(:ids)"),
                {"ids": list(batch_ids)},
            )
            began = time.time()
            session.commit()
        return began


@contextmanager
def start_database_server() -> Iterator[URL]:
    """A separate PostgreSQL server with default settings."""
    with postgres_folder() as folder:
        server = embedded_postgres.start(folder / "d")
        try:
            yield server.set(drivername="postgresql+psycopg")
        finally:
            embedded_postgres.stop(folder / "d")


@contextmanager
def open_environment(server: URL, *, latency_ms: float, **variables: str) -> Iterator[BenchEnvironment]:
    """Open an environment whose bank takes `latency_ms` to respond; `variables` are added to its own."""
    key = Fernet.generate_key().decode()
    with (
        TemporaryDirectory(prefix="bench-") as name,
        temporary_database(server) as url,
        temporary_database(server) as dagster_url,
        start_bank(Path(name, "bank.sqlite"), api_key="bench", latency_ms=latency_ms, available_cents=10**15) as bank,
        start_mailbox(Path(name, "mailbox.sqlite")) as mailbox,
        start_external_services(internal_api_key="bench") as external_services,
    ):
        create_platform_schema(url)
        engine = create_application_engine(url)
        migrate(engine)
        all_variables = {
            **os.environ,
            **mailbox.environment,
            **external_services.environment,
            "PYTHONPATH": str(REPOSITORY),
            "SEEDTRUST_DATABASE_URL": plain_url(url),
            "DAGSTER_POSTGRES_URL": plain_url(dagster_url),
            "SEEDTRUST_FIELD_KEY": key,
            "HUNTINGTON_API_URL": bank.url,
            "HUNTINGTON_API_KEY": bank.api_key,
            "HUNTINGTON_FUNDING_ACCOUNT_ID": bank.funding_account_id,
            "DEV_ENV": "0",
            **variables,
        }
        company = Company(sessionmaker(engine, expire_on_commit=False), FernetFieldCipher([SecretStr(key)]))
        yield BenchEnvironment(server, url, bank, company, all_variables, Path(name))
        engine.dispose()


@contextmanager
def run_program(command: Sequence[str], variables: Mapping[str, str], log: Path) -> Iterator[psutil.Process]:
    """Run `python COMMAND` until the end of the block; its output goes to `log`."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            env=dict(variables),
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            yield psutil.Process(process.pid)
        finally:
            children = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            try:
                process.wait(120)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            # Stock Dagster's code servers keep running if their daemon ends in the middle of a run.
            for child in children:
                with suppress(psutil.NoSuchProcess):
                    child.kill()


def cpu_seconds(root: psutil.Process) -> float:
    """Return the CPU seconds of a process and all processes it ever started, if their parents have reaped them."""
    total = 0.0
    for process in [root, *root.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def wait_for(condition: Callable[[], object], seconds: float, what: str, *, every: float = 0.05) -> None:
    """Wait until the condition holds; raises TimeoutError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Timed out after {seconds:g} s waiting for {what}.")
        time.sleep(every)
