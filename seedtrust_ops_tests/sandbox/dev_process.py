"""Runs `seedtrust-ops dev` in its own home folder, with access to its databases and its bank.

Used by `process_killer`, by the browser tests and by `support.screenshots`.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
from dagster._core.instance.ref import InstanceRef
from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.database.engine import APPLICATION_DATABASE, DAGSTER_DATABASE, create_application_engine
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.sandbox.bank.control_client import SandboxBank
from seedtrust_ops.sandbox.seed.batches import Payment, draft_batch, payable_requests, queue_batches
from seedtrust_ops.supervisor.worker_stack import find_free_port
from seedtrust_ops_tests.support.dagster_homes import DAGSTER_YAML
from seedtrust_ops_tests.support.waiters import wait_until

PAYMENTS = 3
READY_SECONDS = 420.0
STOPPED_SECONDS = 180.0
LOG_SHOWN = 4000


class DevProcess:
    """A running `seedtrust-ops dev` and its home folder."""

    def __init__(self, folder: Path, variables: Mapping[str, str], *, settings: str | None = None) -> None:
        """Start `dev`; `settings` is the text of its dagster.yaml, None for the project's own."""
        self.folder = folder
        self.variables = variables
        self.log = folder / "output.log"
        self.port = find_free_port()
        self.database = folder / ".seedtrust" / "postgres"
        (folder / "dagster.yaml").write_text(settings or DAGSTER_YAML.read_text())
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self.log.open("w") as output:
            dev = subprocess.Popen(
                [sys.executable, "-m", "seedtrust_ops.cli.main", "dev", "--verbose", "--port", str(self.port)],
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(self.folder),
                    "DAGSTER_HOME": str(self.folder),
                    **self.variables,
                },
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            wait_until(
                lambda: " is ready after" in self.log.read_text() or dev.poll() is not None,
                seconds=READY_SECONDS,
                every=0.2,
                what="dev to be ready",
            )
            assert dev.poll() is None, "dev exited before it was ready"
        except AssertionError as failure:
            failure.add_note(f"{self.log.read_text()}\n{self._database_log()}")
            self._stop(dev)
            raise
        return dev

    def _database_log(self) -> str:
        """Return the end of the database server's own log, the only place that explains why it stopped."""
        return "\n".join(file.read_text()[-LOG_SHOWN:] for file in sorted(self.database.glob("log*")) if file.is_file())

    def processes(self) -> list[psutil.Process]:
        """Return every process of `dev` and of its database server, sorted by description."""
        found = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        postmaster = int((self.database / "postmaster.pid").read_text().split()[0])
        found += [psutil.Process(postmaster), *psutil.Process(postmaster).children()]
        return sorted(found, key=lambda process: (describe_process(process), process.pid))

    def restart_if_stopped(self) -> bool:
        """Restart `dev` if it has exited; return whether it had."""
        if self.process.poll() is None:
            return False
        self.process = self._start()
        return True

    def stop(self) -> None:
        self._stop(self.process)

    def _stop(self, dev: "subprocess.Popen[bytes]") -> None:
        if dev.poll() is None:
            dev.terminate()
            dev.wait(STOPPED_SECONDS)
        embedded_postgres.stop(self.database)


def describe_process(process: psutil.Process) -> str:
    """Return the first words of a process's command line, without options and paths."""
    try:
        words = process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return "gone"
    arguments = [word for word in words[1:] if not word.startswith(("-", "/")) and "=" not in word]
    return " ".join([Path(words[0]).name if words else "", *arguments])[:60]


@contextmanager
def open_databases(dev: DevProcess) -> Iterator[tuple["sessionmaker[Session]", dg.DagsterInstance]]:
    """Yield sessions on the company's database, and the Dagster instance."""
    server = embedded_postgres.start(dev.database)
    engine = create_application_engine(embedded_postgres.ensure_database(server, APPLICATION_DATABASE))
    url = embedded_postgres.ensure_database(server, DAGSTER_DATABASE).set(drivername="postgresql+psycopg2")
    storage = {"postgres": {"postgres_url": url.render_as_string(False)}}
    ref = InstanceRef.from_dir(str(dev.folder), overrides={"storage": storage})
    with dg.DagsterInstance.from_ref(ref) as instance:
        yield sessionmaker(engine, expire_on_commit=False), instance
    engine.dispose()


def queue_batch(dev: DevProcess, sessions: "sessionmaker[Session]", *, wires: int = PAYMENTS) -> int:
    """Queue a batch of `wires` approved requests as soon as the database accepts it; return its id."""
    key = SecretStr((dev.folder / ".seedtrust" / "field_key").read_text().strip())
    queued: list[int] = []

    def queue() -> bool:
        try:
            with sessions.begin() as session:
                payments = [Payment(payable, "wire") for payable in payable_requests(session, wires)]
                batch = draft_batch(session, payments, FernetFieldCipher([key]).encrypt)
                queue_batches(session, [batch.batch_id])
            queued.append(batch.batch_id)
        except DBAPIError:
            return False
        return True

    wait_until(queue, seconds=READY_SECONDS, what="the database to accept a batch")
    return queued[0]


def connect_to_bank(dev: DevProcess) -> SandboxBank:
    """Return a control client of the bank that `dev` runs."""
    for process in psutil.Process(dev.process.pid).children(recursive=True):
        try:
            url = process.environ().get("HUNTINGTON_API_URL")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            # It exited in the meantime.
            continue
        if url is not None:
            return SandboxBank(url)
    raise AssertionError("No process of dev has HUNTINGTON_API_URL.")
