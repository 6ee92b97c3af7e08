"""Sets up the demo in a temporary folder with its own database, bank, company and worker, and removes it afterwards.

Nothing outside the folder is read or changed. The scenarios that run in it are in `scenarios`.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import dagster as dg
import psutil
import yaml
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import dagster_home, environment_for_child
from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.database.engine import APPLICATION_DATABASE, DAGSTER_DATABASE, create_application_engine
from seedtrust_ops.migrations.migrator import migrate
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.sandbox.bank.control_client import SandboxBank
from seedtrust_ops.sandbox.seed.money import Encrypt
from seedtrust_ops.sandbox.seed.seeder import backfill_past_transfers, seed_company
from seedtrust_ops.sandbox.stack import SandboxStack, start_sandbox
from seedtrust_ops.supervisor.program import GuardedProcess, Program

CASES = 60
SEED = 20
SETTLEMENT_SECONDS = 8.0
POLL_SECONDS = 0.1
ON_CALL = "on-call@seedtrust.example"
"""Who is notified of alerts."""
DEMO_SETTINGS = "demo.yaml"
"""The worker's `dagster.yaml`, with the storage URL for this process."""
TIMEOUTS = {
    "HUNTINGTON_TIMEOUT_SECONDS": "2",
    "HUNTINGTON_LEASE_SECONDS": "8",
    "HUNTINGTON_UNKNOWN_GRACE_SECONDS": "10",
    "HUNTINGTON_FUNDING_RETRY_SECONDS": "10",
    "HUNTINGTON_CONCURRENCY": "4",
}
"""Seconds where production uses minutes; the rules are the same."""


class CommandFailed(Exception):
    """A command of `seedtrust-ops` failed; the message has its output."""


class RestartableProgram:
    """A program of the demo that can be stopped and restarted; its output goes into a log file."""

    def __init__(self, program: Program, log: IO[str]) -> None:
        """Start it."""
        self._program = program
        self._log = log
        self._run = self._start()

    @property
    def pid(self) -> int:
        """The pid of its process guard, whose session contains everything that the program starts."""
        return self._run.pid

    def exit_code(self) -> int | None:
        """Return its exit code once it has exited, None before."""
        return self._run.exit_code()

    def stop(self) -> None:
        """Stop it and everything it started."""
        self._run.stop()

    def kill(self) -> None:
        """Kill the program itself with SIGKILL; its process guard then stops everything the program started."""
        for child in psutil.Process(self.pid).children():
            child.kill()
        while self._run.exit_code() is None:
            time.sleep(POLL_SECONDS)

    def restart(self) -> None:
        """Start it again after it has exited."""
        self._run.stop()
        self._run = self._start()

    def _start(self) -> GuardedProcess:
        return GuardedProcess(self._program, lambda _name, line: _write_line(self._log, line))


@dataclass(frozen=True)
class DemoEnvironment:
    """Everything a scenario needs: the company's database, the sandbox, Dagster's instance and the worker."""

    sessions: sessionmaker[Session]
    bank: SandboxBank
    stack: SandboxStack
    instance: dg.DagsterInstance
    encrypt: Encrypt
    variables: dict[str, str]
    """The worker's environment variables."""
    folder: Path
    database_folder: Path
    worker: RestartableProgram
    worker_log: Path

    def run_command(self, *arguments: str) -> str:
        """Run `seedtrust-ops` with these arguments, as a person would; return what it printed.

        Raises:
            CommandFailed: if it ended with an error.
        """
        command = [sys.executable, "-m", "seedtrust_ops.cli.main", *arguments]
        done = subprocess.run(command, env=self.variables, capture_output=True, text=True)  # noqa: S603
        if done.returncode:
            raise CommandFailed(f"`seedtrust-ops {' '.join(arguments)}` failed: {done.stderr or done.stdout}")
        return done.stdout.strip()

    def worker_log_tail(self, lines: int) -> str:
        """Return the last lines that the worker's processes printed."""
        return "\n".join(self.worker_log.read_text(errors="replace").splitlines()[-lines:])


@contextmanager
def demo_environment(
    print_message: Callable[[str], None], *, cases: int = CASES, variables: Mapping[str, str] | None = None
) -> Iterator[DemoEnvironment]:
    """Set up the environment, and remove it with its folder when the block ends.

    Args:
        print_message: called with a message about each step.
        cases: how many cases the company has.
        variables: added to the worker's environment.
    """
    folder = Path(tempfile.mkdtemp(prefix="seedtrust-demo-"))
    # If root runs the demo, PostgreSQL runs as another user, who needs access to the folder.
    folder.chmod(0o755)
    with ExitStack() as exit_stack:
        exit_stack.callback(shutil.rmtree, folder, onerror=partial(_report_leftover, print_message))
        print_message("Starting a temporary PostgreSQL server")
        server = embedded_postgres.start(folder / "postgres")
        exit_stack.callback(embedded_postgres.stop, folder / "postgres")
        application = embedded_postgres.ensure_database(server, APPLICATION_DATABASE)
        dagster = embedded_postgres.ensure_database(server, DAGSTER_DATABASE).set(drivername="postgresql")
        engine = create_application_engine(application)
        exit_stack.callback(engine.dispose)
        migrate(engine, create_platform=True)
        print_message("Starting the sandbox: bank, mail server, S3, CloudFront, PostHog and internal API")
        stack = exit_stack.enter_context(start_sandbox(folder / "sandbox", ach_settlement_seconds=SETTLEMENT_SECONDS))
        print_message(f"Seeding a company with {cases} cases")
        key = Fernet.generate_key().decode()
        encrypt = FernetFieldCipher([SecretStr(key)]).encrypt
        seed_company(engine, cases=cases, seed=SEED, encrypt=encrypt)
        sessions = sessionmaker(engine, expire_on_commit=False)
        backfill_past_transfers(sessions, stack.bank.control)
        print_message("Starting the worker: run host, code server and Dagster daemon")
        home = folder / "dagster_home"
        home.mkdir()
        shutil.copy(dagster_home() / "dagster.yaml", home)
        worker_variables = environment_for_child(
            {
                **stack.environment,
                **TIMEOUTS,
                "SEEDTRUST_DATABASE_URL": application.set(drivername="postgresql").render_as_string(False),
                "DAGSTER_POSTGRES_URL": dagster.render_as_string(False),
                "DAGSTER_HOME": str(home),
                # Libraries cache fonts and the like here, so that nothing is left in the user's home folder.
                "XDG_CACHE_HOME": str(folder / "cache"),
                "XDG_CONFIG_HOME": str(folder / "config"),
                "SEEDTRUST_FIELD_KEY": key,
                "SEEDTRUST_TRANSFERS_HALTED": "0",
                "SEEDTRUST_SHADOW": "0",
                "SEEDTRUST_SHADOW_JOBS": "",
                "DEV_ENV": "0",
                "ALERT_EMAILS": ON_CALL,
                **(variables or {}),
            }
        )
        # This process does not have the worker's environment, so its settings contain the storage URL.
        storage_url = dagster.set(drivername="postgresql+psycopg2").render_as_string(False)
        settings = yaml.safe_load((home / "dagster.yaml").read_text())
        settings["storage"] = {"postgres": {"postgres_url": storage_url}}
        (home / DEMO_SETTINGS).write_text(yaml.safe_dump(settings))
        instance = exit_stack.enter_context(dg.DagsterInstance.from_config(str(home), DEMO_SETTINGS))
        log = folder / "worker.log"
        output = exit_stack.enter_context(log.open("w", buffering=1))
        worker = RestartableProgram(
            Program(
                name="worker",
                command=(sys.executable, "-m", "seedtrust_ops.cli.main", "worker"),
                environment=worker_variables,
                stop_seconds=60,
            ),
            output,
        )
        exit_stack.callback(worker.stop)
        yield DemoEnvironment(
            sessions=sessions,
            bank=stack.bank.control,
            stack=stack,
            instance=instance,
            encrypt=encrypt,
            variables=worker_variables,
            folder=folder,
            database_folder=folder / "postgres",
            worker=worker,
            worker_log=log,
        )


def _write_line(output: IO[str], line: str) -> None:
    output.write(f"{line}\n")


def _report_leftover(print_message: Callable[[str], None], _function: object, path: str, error: object) -> None:
    print_message(f"Could not remove {path}: {error}")
