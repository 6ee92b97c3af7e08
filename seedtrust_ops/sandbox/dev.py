"""Everything on one laptop: database, outside world, a seeded company, web server and worker; one Ctrl-C stops all.

Where the user has set database URLs, those are used and nothing embedded is started.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from time import monotonic

import typer
from pydantic import SecretStr
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import dagster_home, environment_for_child, get_settings
from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.database.engine import application_url, create_application_engine, dagster_url, plain_database_errors
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops.migrations.migrator import migrate
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.sandbox.auto_restart import taken_care_of
from seedtrust_ops.sandbox.bank_backfill import plant_past_transfers
from seedtrust_ops.sandbox.seed.batches import Payment, draft_batch, payable_requests, queue_batches
from seedtrust_ops.sandbox.seed.money import Encrypt
from seedtrust_ops.sandbox.seed.seeder import NotOurDatabase, seed_company
from seedtrust_ops.sandbox.stack import World, field_key, start_world
from seedtrust_ops.supervisor.crash_alerts import tell_of_deaths
from seedtrust_ops.supervisor.supervisor import Observer, Supervisor
from seedtrust_ops.supervisor.worker_main import WORKER_FOLDER, print_line, told_to_stop
from seedtrust_ops.supervisor.worker_stack import (
    code_server,
    daemon,
    free_port,
    is_listening,
    only_worker,
    run_host,
    web_server,
    write_workspace,
)

WEB_PORT = 3000
CASES = 200
SEED = 1
PAYMENTS_QUEUED = 12


def run_sandbox() -> None:
    """Run the outside world until Ctrl-C; print the environment that names it, a line a variable."""
    with told_to_stop() as stop, start_world(_world_folder()) as world:
        for name, value in (world.environment | {"SEEDTRUST_FIELD_KEY": _field_key()}).items():
            typer.echo(f"export {name}={value}")
        typer.echo(f"# The bank listens at {world.bank.url}, and so on. Ctrl-C stops them all.")
        stop.wait()


def run_dev(*, with_worker: bool, port: int | None) -> None:
    """Run everything until Ctrl-C.

    Args:
        with_worker: whether the daemon runs too.
        port: of the UI; None for 3000, or any free one where that is taken.

    Raises:
        ConfigurationError: when another program listens at `port`.
        AnotherWorker: when a worker or a `dev` with this DAGSTER_HOME runs already.
        SchemaOutOfDate, DatabaseUnreachable, WorldNotStarted: as their modules say.
    """
    home = dagster_home()
    web_port = _web_port(port)
    with told_to_stop() as stop, only_worker(home / WORKER_FOLDER) as lock, _databases() as databases:
        key = _field_key()
        with start_world(_world_folder()) as world:
            _fill(databases.application, world, FernetFieldCipher([SecretStr(one) for one in key.split(",")]).encrypt)
            child = environment_for_child(
                {
                    **world.environment,
                    "DAGSTER_HOME": str(home),
                    "SEEDTRUST_FIELD_KEY": key,
                    "SEEDTRUST_DATABASE_URL": databases.application.render_as_string(False),
                    "DAGSTER_POSTGRES_URL": databases.dagster.render_as_string(False),
                },
                defaults={"DEV_ENV": "1"},
            )
            say = print_line()
            with (
                tell_of_deaths(databases.application, say) as deaths,
                taken_care_of(world, databases.embedded_directory, say),
            ):
                _serve(child, home, lock, deaths, with_worker=with_worker, web_port=web_port).run(stop)


def _web_port(wanted: int | None) -> int:
    if wanted is None:
        return free_port() if is_listening(WEB_PORT) else WEB_PORT
    if is_listening(wanted):
        raise ConfigurationError(f"Another program listens at port {wanted}: stop it, or give `--port` another number.")
    return wanted


def _serve(
    child: Mapping[str, str], home: Path, lock: int, observer: Observer, *, with_worker: bool, web_port: int
) -> Supervisor:
    port = free_port()
    workspace = write_workspace(home / WORKER_FOLDER, port)
    programs = [*run_host(child, home), code_server(child, port), web_server(child, workspace, web_port)]
    if with_worker:
        programs.append(daemon(child, workspace))
    supervisor = Supervisor(programs, print_line(), observer=observer, lock=lock)
    began = monotonic()

    def announce() -> None:
        supervisor.all_ready.wait()
        state = "switched off until you switch them on" if child["DEV_ENV"] == "1" else "on"
        print_line()(
            "dev",
            f"http://127.0.0.1:{web_port} is ready after {monotonic() - began:.0f} s; schedules and sensors are "
            f"{state}. Ctrl-C stops everything.",
        )

    Thread(target=announce, daemon=True).start()
    return supervisor


@dataclass(frozen=True)
class _Databases:
    application: URL
    dagster: URL
    embedded_directory: Path | None
    """Where the embedded server is that was started for this, None where there is none."""


@contextmanager
def _databases() -> Iterator[_Databases]:
    """Yield where both databases are; an embedded server that was started for this is stopped afterwards."""
    settings = get_settings().databases
    needs_embedded = settings.application_url is None or settings.dagster_url is None
    started_here = needs_embedded and not embedded_postgres.is_running(settings.embedded_directory)
    try:
        directory = settings.embedded_directory.expanduser() if started_here else None
        yield _Databases(application_url(), dagster_url(), directory)
    finally:
        if started_here:
            embedded_postgres.stop(settings.embedded_directory)


def _fill(url: URL, world: World, encrypt: Encrypt) -> None:
    """Create the schemas, and seed the database where it is empty."""
    engine = create_application_engine(url)
    try:
        with plain_database_errors(url):
            for sentence in migrate(engine, create_platform=True):
                typer.echo(sentence)
            try:
                added = seed_company(engine, cases=CASES, seed=SEED, encrypt=encrypt).added
            except NotOurDatabase:
                typer.echo("The database holds a company of its own; it is used as it is.")
                return
            if not added:
                return
            sessions = sessionmaker(engine, expire_on_commit=False)
            plant_past_transfers(sessions, world.bank.control)
            with sessions.begin() as session:
                batch_id = _queue_one_batch(session, encrypt)
        typer.echo(f"Seeded a company with {CASES} cases; batch {batch_id} is queued and waits to be sent.")
    finally:
        engine.dispose()


def _queue_one_batch(session: Session, encrypt: Encrypt) -> int:
    payments = [
        Payment(payable, "wire" if number % 3 == 0 else "ach")
        for number, payable in enumerate(payable_requests(session, PAYMENTS_QUEUED))
    ]
    batch = draft_batch(session, payments, encrypt)
    queue_batches(session, [batch.batch_id])
    return batch.batch_id


def _laptop_folder() -> Path:
    """Return the folder of the embedded database; what belongs to its rows lies beside it."""
    return get_settings().databases.embedded_directory.expanduser().parent


def _field_key() -> str:
    """Return the configured field keys, comma-separated, else the laptop's own."""
    try:
        keys = get_settings().field_keys.keys
    except ConfigurationError:
        return field_key(_laptop_folder())
    return ",".join(key.get_secret_value() for key in keys)


def _world_folder() -> Path:
    """Return where the bank keeps its books: one folder a database, because both count transactions from 1."""
    url = get_settings().databases.application_url
    if url is None:
        return _laptop_folder() / "sandbox"
    name = hashlib.sha256(url.set(password=None).render_as_string().encode()).hexdigest()[:12]
    return _laptop_folder() / f"sandbox-{name}"
