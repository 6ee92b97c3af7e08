"""Sets the demo's stage in a temporary folder: its own database, bank, company and worker; and takes it down again.

What is played on it is in `scenes`; nothing outside the folder is read or changed.
"""

import shutil
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
from cryptography.fernet import Fernet
from dagster._core.instance.ref import InstanceRef
from pydantic import SecretStr
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import dagster_home, environment_for_child
from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.database.engine import APPLICATION_DATABASE, DAGSTER_DATABASE, create_application_engine
from seedtrust_ops.migrations.migrator import migrate
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.sandbox.bank.control_client import SandboxBank
from seedtrust_ops.sandbox.bank_backfill import plant_past_transfers
from seedtrust_ops.sandbox.seed.money import Encrypt
from seedtrust_ops.sandbox.seed.seeder import seed_company
from seedtrust_ops.sandbox.stack import World, start_world
from seedtrust_ops.supervisor.program import KeptRun, Program

CASES = 60
SEED = 20
SETTLEMENT_SECONDS = 8.0
LOOK_SECONDS = 0.1
PATIENCE = {
    "HUNTINGTON_TIMEOUT_SECONDS": "2",
    "HUNTINGTON_LEASE_SECONDS": "8",
    "HUNTINGTON_UNKNOWN_GRACE_SECONDS": "10",
    "HUNTINGTON_CONCURRENCY": "4",
}
"""Production waits minutes where the demo waits seconds; the rules are the same."""


class StagedProgram:
    """A program on the stage that can be ended and started again; what it prints goes into the stage's log."""

    def __init__(self, program: Program, log: IO[str]) -> None:
        """Start it."""
        self._program = program
        self._log = log
        self._run = self._started()

    @property
    def pid(self) -> int:
        """The process that keeps it, which is the session of all that it starts."""
        return self._run.pid

    def exit_code(self) -> int | None:
        """Return its exit code once it has ended, None before."""
        return self._run.exit_code()

    def stop(self) -> None:
        """End it and all that it started."""
        self._run.stop()

    def kill(self) -> None:
        """End it the hard way (SIGKILL to the program itself); its keeper ends what it had started."""
        for one in psutil.Process(self.pid).children():
            one.kill()
        while self._run.exit_code() is None:
            time.sleep(LOOK_SECONDS)

    def start_again(self) -> None:
        """Start it again, once it has ended."""
        self._run.stop()
        self._run = self._started()

    def _started(self) -> KeptRun:
        return KeptRun(self._program, lambda _name, line: _write(self._log, line))


@dataclass(frozen=True)
class Stage:
    """All that the scenes need: the company's database, the bank, Dagster's runs and the worker."""

    sessions: sessionmaker[Session]
    bank: SandboxBank
    world: World
    instance: dg.DagsterInstance
    encrypt: Encrypt
    environment: dict[str, str]
    folder: Path
    database_folder: Path
    worker: StagedProgram
    worker_log: Path

    def last_words_of_worker(self, lines: int) -> str:
        """Return the last lines that the worker's processes printed."""
        return "\n".join(self.worker_log.read_text(errors="replace").splitlines()[-lines:])


@contextmanager
def set_stage(
    say: Callable[[str], None], *, cases: int = CASES, variables: Mapping[str, str] | None = None
) -> Iterator[Stage]:
    """Set the stage and take it down when the block ends, folder and all.

    Args:
        say: is told each step.
        cases: how many cases the company has.
        variables: added to the worker's environment.
    """
    folder = Path(tempfile.mkdtemp(prefix="seedtrust-demo-"))
    # Run by root, PostgreSQL becomes another user, who must get in.
    folder.chmod(0o755)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, onerror=partial(_complain, say))
        say("Starting a PostgreSQL of its own")
        server = embedded_postgres.start(folder / "postgres")
        stack.callback(embedded_postgres.stop, folder / "postgres")
        application = embedded_postgres.ensure_database(server, APPLICATION_DATABASE)
        dagster = embedded_postgres.ensure_database(server, DAGSTER_DATABASE).set(drivername="postgresql")
        engine = create_application_engine(application)
        stack.callback(engine.dispose)
        migrate(engine, create_platform=True)
        say("Starting the sandbox: bank, mail, S3 and the others")
        world = stack.enter_context(start_world(folder / "world", ach_settlement_seconds=SETTLEMENT_SECONDS))
        say(f"Seeding a company with {cases} cases")
        key = Fernet.generate_key().decode()
        encrypt = FernetFieldCipher([SecretStr(key)]).encrypt
        seed_company(engine, cases=cases, seed=SEED, encrypt=encrypt)
        sessions = sessionmaker(engine, expire_on_commit=False)
        plant_past_transfers(sessions, world.bank.control)
        say("Starting the worker: a code server and Dagster's daemon")
        home = folder / "dagster_home"
        home.mkdir()
        shutil.copy(dagster_home() / "dagster.yaml", home)
        environment = environment_for_child(
            {
                **world.environment,
                **PATIENCE,
                "SEEDTRUST_DATABASE_URL": application.set(drivername="postgresql").render_as_string(False),
                "DAGSTER_POSTGRES_URL": dagster.render_as_string(False),
                "DAGSTER_HOME": str(home),
                # Where libraries keep fonts and the like, so that nothing is left in the user's home.
                "XDG_CACHE_HOME": str(folder / "cache"),
                "XDG_CONFIG_HOME": str(folder / "config"),
                "SEEDTRUST_FIELD_KEY": key,
                "SEEDTRUST_TRANSFERS_HALTED": "0",
                "SEEDTRUST_SHADOW": "0",
                "SEEDTRUST_SHADOW_JOBS": "",
                "DEV_ENV": "0",
                **(variables or {}),
            }
        )
        storage = {"postgres": {"postgres_url": dagster.set(drivername="postgresql+psycopg2").render_as_string(False)}}
        # This process has not the worker's environment, so it is told where Dagster keeps its runs.
        instance = stack.enter_context(
            dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides={"storage": storage}))
        )
        log = folder / "worker.log"
        output = stack.enter_context(log.open("w", buffering=1))
        worker = StagedProgram(
            Program(
                name="worker",
                command=(sys.executable, "-m", "seedtrust_ops.cli.main", "worker"),
                environment=environment,
                stop_seconds=60,
            ),
            output,
        )
        stack.callback(worker.stop)
        yield Stage(
            sessions=sessions,
            bank=world.bank.control,
            world=world,
            instance=instance,
            encrypt=encrypt,
            environment=environment,
            folder=folder,
            database_folder=folder / "postgres",
            worker=worker,
            worker_log=log,
        )


def _write(output: IO[str], line: str) -> None:
    output.write(f"{line}\n")


def _complain(say: Callable[[str], None], _function: object, path: str, error: object) -> None:
    say(f"{path} could not be removed: {error}")
