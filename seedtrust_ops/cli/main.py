"""The entry point of `seedtrust-ops`: registers all commands and turns expected errors into one-line messages.

Modules that are slow to import are imported inside the commands, so that `--help` responds at once.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from seedtrust_ops.cli.alerts import alerts
from seedtrust_ops.cli.keys import keys
from seedtrust_ops.cli.new import new
from seedtrust_ops.cli.notifications import notifications
from seedtrust_ops.cli.rules import rules
from seedtrust_ops.cli.shadow import shadow
from seedtrust_ops.cli.status import health, status, watchdog
from seedtrust_ops.cli.transfers import transfers
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.formatting import MAX_ID, strip_control_chars

MONITORING = "Monitoring"
OPERATIONS = "Operations"
DEPLOYMENT = "Deployment"
DEVELOPMENT = "Local development"
PANELS = (MONITORING, OPERATIONS, DEPLOYMENT, DEVELOPMENT)
"""The panels of `--help`, in order."""


class _ErrorHandlingGroup(TyperGroup):
    """Prints a `SeedTrustError` as one line on stderr and exits with code 1, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SeedTrustError as error:
            typer.echo(strip_control_chars(str(error)), err=True)
            raise typer.Exit(1) from None

    def list_commands(self, ctx: Any) -> list[str]:
        """List the commands by help panel, because Typer would list all groups after all single commands."""
        return sorted(super().list_commands(ctx), key=self._panel_index)

    def _panel_index(self, name: str) -> int:
        return PANELS.index(getattr(self.commands[name], "rich_help_panel", DEVELOPMENT))


app = typer.Typer(
    cls=_ErrorHandlingGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Run, monitor and operate SeedTrust's background jobs.",
)
for command in (status, health, watchdog):
    app.command(rich_help_panel=MONITORING)(command)
app.add_typer(alerts, name="alerts", rich_help_panel=MONITORING)
app.add_typer(transfers, name="transfers", rich_help_panel=OPERATIONS)
app.add_typer(rules, name="rules", rich_help_panel=OPERATIONS)
app.add_typer(notifications, name="notifications", rich_help_panel=OPERATIONS)
app.add_typer(keys, name="keys", rich_help_panel=OPERATIONS)
app.add_typer(shadow, name="shadow", rich_help_panel=OPERATIONS)
app.add_typer(new, name="new", rich_help_panel=DEVELOPMENT)


@app.command(rich_help_panel=DEPLOYMENT)
def migrate(
    platform: Annotated[
        bool,
        typer.Option("--platform", help="Also create the platform's tables, if there are none. For laptops and tests."),
    ] = False,
) -> None:
    """Migrate schema ops to the newest revision.

    Before that, it checks that the platform's tables have every column that the jobs use. If one is missing, it
    names it and changes nothing. Unless process_huntington_batch is in shadow mode, it also records the moment of the
    cutover from the legacy worker, once.
    """
    from seedtrust_ops.config import get_settings
    from seedtrust_ops.database.engine import application_url, create_application_engine, translate_database_errors
    from seedtrust_ops.migrations.migrator import CUTOVER_JOB
    from seedtrust_ops.migrations.migrator import migrate as run_migrations

    legacy_worker_runs = get_settings().shadow.covers(CUTOVER_JOB)
    engine = create_application_engine(application_url())
    with translate_database_errors(engine.url):
        for message in run_migrations(engine, create_platform=platform, legacy_worker_runs=legacy_worker_runs):
            typer.echo(message)


@app.command(rich_help_panel=DEVELOPMENT)
def seed(
    cases: Annotated[int, typer.Option(min=1, max=100_000, help="The number of cases to create.")] = 200,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_ID, help="The random seed. The same seed gives the same data.")
    ] = 1,
) -> None:
    """Fill an empty database with sample data.

    If the database already has sample data, nothing is added. If it has other data, the command fails.
    """
    from seedtrust_ops.config import get_settings
    from seedtrust_ops.database.engine import application_engine, translate_database_errors
    from seedtrust_ops.resources.field_encryption import FernetFieldCipher
    from seedtrust_ops.sandbox.seed.seeder import seed_company

    cipher = FernetFieldCipher(get_settings().field_keys.keys)
    engine = application_engine()
    with translate_database_errors(engine.url):
        company = seed_company(engine, cases=cases, seed=seed, encrypt=cipher.encrypt)
    rows = ", ".join(f"{count} {table.replace('_', ' ')}" for table, count in company.rows.items())
    prefix = "Added sample data" if company.added else "Nothing added, because the database already has sample data"
    typer.echo(f"{prefix}: {rows}.")


@app.command(rich_help_panel=DEVELOPMENT)
def sandbox() -> None:
    """Run local stand-ins for all external services until Ctrl-C.

    It starts a bank, mail server, S3, PostHog and internal API, and prints the environment variables to reach them.
    """
    from seedtrust_ops.config import ignore_running_sandbox
    from seedtrust_ops.sandbox.dev import run_sandbox

    ignore_running_sandbox()
    run_sandbox()


@app.command(rich_help_panel=DEVELOPMENT)
def demo(
    short: Annotated[bool, typer.Option("--short", help="Run a shorter selection of scenarios.")] = False,
) -> None:
    """Send batches through a faulty bank, and show that every cent is sent exactly once.

    It runs on a temporary sandbox of its own, and ends by comparing the bank's records with SeedTrust's ledger.
    """
    from seedtrust_ops.config import ignore_running_sandbox
    from seedtrust_ops.sandbox.demo.report import run_demo

    ignore_running_sandbox()
    raise typer.Exit(run_demo(short=short))


@app.command(rich_help_panel=DEVELOPMENT)
def gameday(
    only: Annotated[
        list[str] | None, typer.Option(help="Run only this incident, such as 'bank down'. Repeat the option for more.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Run incident drills on a temporary sandbox.

    It causes one incident after another, and verifies that each is detected, that people are notified, that the
    system recovers, and that every cent is accounted for.
    """
    from seedtrust_ops.config import ignore_running_sandbox
    from seedtrust_ops.sandbox.gameday.report import run_gameday

    ignore_running_sandbox()
    raise typer.Exit(run_gameday(only or (), as_json=as_json))


@app.command(rich_help_panel=DEVELOPMENT)
def dev(
    worker: Annotated[
        bool,
        typer.Option(
            "--worker/--no-worker", help="Also run Dagster's daemon, which runs schedules, sensors and queued runs."
        ),
    ] = True,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65_535, help="The port of the Dagster UI.", show_default="3000, or any free port"),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print every line of the programs, not only runs, alerts and errors.")
    ] = False,
) -> None:
    """Run everything on this laptop until Ctrl-C.

    It starts the embedded database with sample data, the sandbox, the Dagster UI and the worker. Meanwhile, commands in
    other shells of this user use them too, unless a database, the bank, the mail server or the bucket is set there.
    """
    from seedtrust_ops.config import ignore_running_sandbox
    from seedtrust_ops.sandbox.dev import run_dev

    ignore_running_sandbox()
    run_dev(with_worker=worker, port=port, verbose=verbose)


@app.command(rich_help_panel=DEPLOYMENT)
def worker() -> None:
    """Run the production worker: run host, code server and Dagster's daemon.

    It restarts a process that crashes, and runs until SIGTERM or Ctrl-C.
    """
    from seedtrust_ops.config import dagster_home, environment_for_child
    from seedtrust_ops.supervisor.worker_main import run_worker

    home = dagster_home()
    run_worker(home, environment_for_child({"DAGSTER_HOME": str(home)}))


@app.command(rich_help_panel=DEPLOYMENT)
def web(
    read_only: Annotated[bool, typer.Option("--read-only", help="Refuse every launch and every other change.")] = False,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="The port to listen on.")] = 3000,
    workspace: Annotated[
        Path | None,
        typer.Option("--workspace", "-w", help="The file that names the code server.", show_default="the worker's own"),
    ] = None,
) -> None:
    """Run the web server of the Dagster UI until SIGTERM or Ctrl-C.

    It has no login: a proxy in front of it decides who may use it. It refuses requests of other sites' pages, and
    requests for a host other than this machine and SEEDTRUST_WEB_HOSTS.
    """
    from seedtrust_ops.config import dagster_home, get_settings
    from seedtrust_ops.supervisor.worker_main import WORKER_FOLDER
    from seedtrust_ops.supervisor.worker_stack import WORKSPACE_FILE
    from seedtrust_ops.web.server import serve

    hosts = get_settings().web.hosts
    file = workspace or dagster_home() / WORKER_FOLDER / WORKSPACE_FILE
    typer.echo(f"Starting the Dagster UI at http://{host}:{port}. Press Ctrl-C to stop it.")
    serve(file, host=host, port=port, read_only=read_only, allowed_hosts=hosts)


if __name__ == "__main__":
    app()
