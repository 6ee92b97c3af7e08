"""`seedtrust-ops`: what people type. Each command is one call into the module that does it.

Whatever is slow to import is imported inside the command, so that `--help` answers at once.
"""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from seedtrust_ops.cli.alerts import alerts
from seedtrust_ops.cli.keys import keys
from seedtrust_ops.cli.notifications import notifications
from seedtrust_ops.cli.rules import rules
from seedtrust_ops.cli.shadow import shadow
from seedtrust_ops.cli.status import health, status, watchdog
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.formatting import strip_control_chars


class _InSentences(TyperGroup):
    """Prints trouble that people should read about as one sentence, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SeedTrustError as error:
            typer.echo(strip_control_chars(str(error)), err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_InSentences,
    no_args_is_help=True,
    add_completion=False,
    help="SeedTrust's background work: run it, look at it, try it out on a laptop.",
)
transfers = typer.Typer(no_args_is_help=True, help="Stop and resume the sending of transfers.")
app.add_typer(transfers, name="transfers")
app.add_typer(keys, name="keys")
app.add_typer(alerts, name="alerts")
app.add_typer(notifications, name="notifications")
app.add_typer(rules, name="rules")
app.add_typer(shadow, name="shadow")
for command in (status, health, watchdog):
    app.command()(command)


@app.command()
def migrate(
    platform: Annotated[
        bool, typer.Option("--platform", help="Also create the platform's own tables (laptops, tests).")
    ] = False,
) -> None:
    """Bring schema ops up to date and check that the platform's tables have what the jobs use."""
    from seedtrust_ops.database.engine import application_url, create_application_engine, plain_database_errors
    from seedtrust_ops.migrations.migrator import migrate as bring_up_to_date

    engine = create_application_engine(application_url())
    with plain_database_errors(engine.url):
        for sentence in bring_up_to_date(engine, create_platform=platform):
            typer.echo(sentence)


@app.command()
def seed(
    cases: Annotated[int, typer.Option(help="How many cases the company has.")] = 200,
    seed: Annotated[int, typer.Option(help="Decides everything that is left to chance.")] = 1,
) -> None:
    """Fill an empty database with a made-up company."""
    from seedtrust_ops.config import get_settings
    from seedtrust_ops.database.engine import application_engine, plain_database_errors
    from seedtrust_ops.resources.field_encryption import FernetFieldCipher
    from seedtrust_ops.sandbox.seed.seeder import seed_company

    cipher = FernetFieldCipher(get_settings().field_keys.keys)
    engine = application_engine()
    with plain_database_errors(engine.url):
        company = seed_company(engine, cases=cases, seed=seed, encrypt=cipher.encrypt)
    rows = ", ".join(f"{count} {table.replace('_', ' ')}" for table, count in company.rows.items())
    typer.echo(
        f"{'Seeded' if company.added else 'Nothing was added: the database holds a seeded company already'}: {rows}."
    )


@app.command()
def sandbox() -> None:
    """Run the servers of the outside world until Ctrl-C, and print the environment that names them."""
    from seedtrust_ops.sandbox.dev import run_sandbox

    run_sandbox()


@app.command()
def demo(
    short: Annotated[bool, typer.Option("--short", help="Only the halt, the kill, timeouts and the legacy.")] = False,
) -> None:
    """Show a company's transfers surviving every fault that the sandbox bank knows, and both ledgers agreeing."""
    from seedtrust_ops.sandbox.demo.report import run_demo

    raise typer.Exit(run_demo(short=short))


@app.command()
def gameday(
    only: Annotated[list[str] | None, typer.Option(help="Only this trouble; may be given several times.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Cause each trouble on a sandbox of its own, and see that it is noticed, told, mended, and the money right."""
    from seedtrust_ops.sandbox.gameday.report import run_gameday

    raise typer.Exit(run_gameday(only or (), as_json=as_json))


@app.command()
def dev(
    worker: Annotated[bool, typer.Option("--worker/--no-worker", help="Run the daemon too.")] = True,
    port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Where the UI is; without it 3000, or any that is free.")
    ] = None,
) -> None:
    """Run everything on this laptop: database, sandbox, a seeded company, web server and worker; Ctrl-C stops all."""
    from seedtrust_ops.sandbox.dev import run_dev

    run_dev(with_worker=worker, port=port)


@app.command()
def worker() -> None:
    """Run the code server and Dagster's daemon, starting again what dies, until SIGTERM or Ctrl-C."""
    from seedtrust_ops.config import dagster_home, environment_for_child
    from seedtrust_ops.supervisor.worker_main import run_worker

    home = dagster_home()
    run_worker(home, environment_for_child({"DAGSTER_HOME": str(home)}))


@transfers.command()
def halt(
    reason: Annotated[str, typer.Option(help="Why, for everybody who wonders later.")],
) -> None:
    """Stop all sending of transfers at once; healing goes on."""
    from getpass import getuser

    from seedtrust_ops.database.engine import application_sessions
    from seedtrust_ops.domain.transfers import kill_switch

    with application_sessions().begin() as session:
        kill_switch.halt(session, reason, set_by=getuser())
        typer.echo(strip_control_chars(kill_switch.why_halted(session, halted_by_environment=False) or ""))


@transfers.command()
def resume() -> None:
    """Send transfers again."""
    from seedtrust_ops.config import get_settings
    from seedtrust_ops.database.engine import application_sessions
    from seedtrust_ops.domain.transfers import kill_switch

    with application_sessions().begin() as session:
        was_halted = kill_switch.resume(session)
        still = kill_switch.why_halted(session, get_settings().transfers.halted)
    typer.echo(
        strip_control_chars(still)
        if still
        else ("Transfers are sent again." if was_halted else "Transfers were not halted.")
    )


if __name__ == "__main__":
    app()
