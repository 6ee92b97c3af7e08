"""Runs everything on one laptop: database, sandbox servers, a seeded company, web server and worker.

Ctrl-C stops all of it. If database URLs are set, those databases are used and no embedded server is started. What it
prints while it runs is in `dev_output`.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import SubprocessError
from threading import Event, Thread
from time import monotonic

import psutil
import typer
from pydantic import SecretStr
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import dagster_home, environment_for_child, get_settings, overridden_variables
from seedtrust_ops.config.running_sandbox import is_decisive
from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.database.engine import (
    application_url,
    create_application_engine,
    dagster_url,
    translate_database_errors,
)
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops.migrations.migrator import migrate
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.sandbox.announcement import announce, require_no_other_sandbox
from seedtrust_ops.sandbox.dev_output import DevOutput, print_activity
from seedtrust_ops.sandbox.seed.batches import Payment, draft_batch, payable_requests, queue_batches
from seedtrust_ops.sandbox.seed.money import Encrypt
from seedtrust_ops.sandbox.seed.seeder import DatabaseNotEmpty, backfill_past_transfers, seed_company
from seedtrust_ops.sandbox.stack import SandboxStack, load_or_create_field_key, start_sandbox
from seedtrust_ops.supervisor.crash_alerts import record_crash_alerts
from seedtrust_ops.supervisor.program import PrintLine
from seedtrust_ops.supervisor.supervisor import Observer, Supervisor
from seedtrust_ops.supervisor.worker_main import WORKER_FOLDER, stop_on_signals
from seedtrust_ops.supervisor.worker_stack import (
    LOOPBACK,
    build_code_server,
    build_daemon,
    build_run_host,
    build_web_server,
    find_free_port,
    hold_worker_lock,
    is_listening,
    prepare_code_server_socket,
    write_workspace,
)

WEB_PORT = 3000
CASES = 200
SEED = 1
PAYMENTS_QUEUED = 12
LOG_FILE = "dev.log"
REACH_OUT = ("SEEDTRUST_DATABASE_URL", "DAGSTER_POSTGRES_URL", "ALERT_URLS", "HEARTBEAT_URL")
"""Variables by which a sandbox reads or notifies something outside of it, if the shell has them."""
CHECK_SECONDS = 0.5
"""How often the sandbox servers and the embedded database are checked for a crash."""


def run_sandbox() -> None:
    """Run the sandbox servers until Ctrl-C; print one `export` line for each variable that points at them."""
    with stop_on_signals() as stop, start_sandbox(_sandbox_folder()) as stack:
        for name, value in (stack.environment | {"SEEDTRUST_FIELD_KEY": _field_key()}).items():
            typer.echo(f"export {name}={value}")
        typer.echo(f"# The sandbox bank is at {stack.bank.url}. Press Ctrl-C to stop all sandbox servers.")
        stop.wait()


def run_dev(*, with_worker: bool, port: int | None, verbose: bool) -> None:
    """Run everything until Ctrl-C.

    Args:
        with_worker: whether to run the daemon too.
        port: the UI's port; None for 3000, or any free port if 3000 is taken.
        verbose: whether to print every line of the programs, not only what matters.

    Raises:
        ConfigurationError: if another program is listening on `port`.
        WorkerAlreadyRunning: if a worker or another `dev` with this DAGSTER_HOME is running.
        SandboxAlreadyRunning: if this user runs another `dev` on the same database.
        SchemaOutOfDate, DatabaseUnreachable, SandboxNotStarted: see their definitions.
    """
    home = dagster_home()
    web_port = _web_port(port)
    with stop_on_signals() as stop, ExitStack() as running:
        lock = running.enter_context(hold_worker_lock(home / WORKER_FOLDER))
        databases = running.enter_context(_databases())
        require_no_other_sandbox(databases.application.render_as_string(False))
        output = running.enter_context(DevOutput(home / WORKER_FOLDER / LOG_FILE, verbose=verbose))
        key = _field_key()
        stack = running.enter_context(start_sandbox(_sandbox_folder()))
        cipher = FernetFieldCipher([SecretStr(one) for one in key.split(",")])
        _prepare_database(databases.application, stack, cipher.encrypt)
        changes = {
            **stack.environment,
            "SEEDTRUST_FIELD_KEY": key,
            "SEEDTRUST_DATABASE_URL": databases.application.render_as_string(False),
            "DAGSTER_POSTGRES_URL": databases.dagster.render_as_string(False),
        }
        child = environment_for_child(changes | {"DAGSTER_HOME": str(home)}, defaults={"DEV_ENV": "1"})
        _describe_environment(stack, output)
        found_by_shells = {*changes, "DEV_ENV", *filter(is_decisive, child)}
        running.enter_context(announce({name: child[name] for name in found_by_shells}))
        running.enter_context(print_activity(databases.application, output, f"http://{LOOPBACK}:{web_port}"))
        crash_alerts = running.enter_context(record_crash_alerts(databases.application, output.print_line))
        running.enter_context(_restart_stopped_servers(stack, databases.embedded_directory, output.print_line))
        _supervisor(child, home, lock, crash_alerts, output, with_worker=with_worker, web_port=web_port).run(stop)


def _describe_environment(stack: SandboxStack, output: DevOutput) -> None:
    """Print which variables of this shell do not count here, which do although they are real, and where emails are."""
    if overridden := overridden_variables(stack.environment):
        output.print_line("dev", f"The sandbox replaces these variables of this shell: {', '.join(overridden)}.")
    if kept := [name for name in REACH_OUT if overridden_variables({name: ""})]:
        output.print_line("dev", f"These variables of this shell stay in effect: {', '.join(kept)}.")
    output.print_line(
        "dev",
        "Emails go to the sandbox's mail server, never to people. Read them in another terminal: "
        "`seedtrust-ops notifications list`, then `show ID`.",
    )


def _web_port(requested: int | None) -> int:
    if requested is None:
        return find_free_port() if is_listening(WEB_PORT) else WEB_PORT
    if is_listening(requested):
        raise ConfigurationError(
            f"Port {requested} is in use by another program. Stop that program, or pass a different `--port`."
        )
    return requested


def _supervisor(
    child: Mapping[str, str],
    home: Path,
    lock: int,
    observer: Observer,
    output: DevOutput,
    *,
    with_worker: bool,
    web_port: int,
) -> Supervisor:
    socket_path = prepare_code_server_socket(home / WORKER_FOLDER)
    workspace = write_workspace(home / WORKER_FOLDER, socket_path)
    programs = [
        *build_run_host(child, home),
        build_code_server(child, socket_path),
        build_web_server(child, workspace, web_port),
    ]
    if with_worker:
        programs.append(build_daemon(child, workspace))
    supervisor = Supervisor(programs, output.print_line, print_output=output.print_output, observer=observer, lock=lock)
    started_at = monotonic()

    def print_when_ready() -> None:
        supervisor.all_ready.wait()
        state = "stopped; turn on the ones you need in the UI" if child["DEV_ENV"] == "1" else "running"
        output.print_line(
            "dev",
            f"http://{LOOPBACK}:{web_port} is ready after {monotonic() - started_at:.0f} s. "
            f"Schedules and sensors are {state}. Press Ctrl-C to stop everything.",
        )

    Thread(target=print_when_ready, daemon=True).start()
    return supervisor


@dataclass(frozen=True)
class _Databases:
    application: URL
    dagster: URL
    embedded_directory: Path | None
    """The folder of the embedded server if this `dev` started it, else None."""


@contextmanager
def _databases() -> Iterator[_Databases]:
    """Yield the URLs of both databases; stop the embedded server afterwards if this `dev` started it."""
    settings = get_settings().databases
    needs_embedded = settings.application_url is None or settings.dagster_url is None
    started_here = needs_embedded and not embedded_postgres.is_running(settings.embedded_directory)
    try:
        directory = settings.embedded_directory.expanduser() if started_here else None
        yield _Databases(application_url(), dagster_url(), directory)
    finally:
        if started_here:
            embedded_postgres.stop(settings.embedded_directory)


@contextmanager
def _restart_stopped_servers(stack: SandboxStack, database: Path | None, print_line: PrintLine) -> Iterator[None]:
    """Restart servers of the sandbox if they crash, as a real vendor would, until the block ends.

    The embedded database in folder `database` is restarted too; None if this `dev` did not start it.
    """
    ending = Event()

    def restart_loop() -> None:
        while not ending.wait(CHECK_SECONDS):
            try:
                if database is not None and not embedded_postgres.is_running(database):
                    embedded_postgres.start(database)
                    print_line("sandbox", "The embedded database stopped unexpectedly and was restarted.")
                for server in stack.restart_stopped():
                    print_line("sandbox", f"{server} stopped unexpectedly and was restarted.")
            except (RuntimeError, OSError, SubprocessError, psutil.Error) as error:
                print_line("sandbox", f"A restart failed and will be retried: {error}")

    thread = Thread(target=restart_loop, name="auto-restart")
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def _prepare_database(url: URL, stack: SandboxStack, encrypt: Encrypt) -> None:
    """Create or upgrade the schemas, and seed the database if it is empty."""
    engine = create_application_engine(url)
    try:
        with translate_database_errors(url):
            for message in migrate(engine, create_platform=True):
                typer.echo(message)
            try:
                added = seed_company(engine, cases=CASES, seed=SEED, encrypt=encrypt).added
            except DatabaseNotEmpty:
                typer.echo("The database already has data that `seed` did not create. Using it unchanged.")
                return
            if not added:
                return
            sessions = sessionmaker(engine, expire_on_commit=False)
            backfill_past_transfers(sessions, stack.bank.control)
            with sessions.begin() as session:
                batch_id = _queue_one_batch(session, encrypt)
        typer.echo(f"Seeded a company with {CASES} cases. Batch {batch_id} is queued for sending.")
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
    """Return the parent folder of the embedded database; the field key and the sandbox's files are stored there."""
    return get_settings().databases.embedded_directory.expanduser().parent


def _field_key() -> str:
    """Return the configured field keys, comma-separated; if none are configured, this laptop's generated key."""
    try:
        keys = get_settings().field_keys.keys
    except ConfigurationError:
        return load_or_create_field_key(_laptop_folder())
    return ",".join(key.get_secret_value() for key in keys)


def _sandbox_folder() -> Path:
    """Return the folder for the sandbox's files: one per database, because every database numbers from 1."""
    url = get_settings().databases.application_url
    if url is None:
        return _laptop_folder() / "sandbox"
    name = hashlib.sha256(url.set(password=None).render_as_string().encode()).hexdigest()[:12]
    return _laptop_folder() / f"sandbox-{name}"
