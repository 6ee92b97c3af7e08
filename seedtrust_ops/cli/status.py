"""`seedtrust-ops status`, `health` and `watchdog`: how things stand, and who looks while nobody does.

The commands are registered in `cli`. None of them loads Dagster: they must answer at once, and when it is dead.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.formatting import strip_control_chars

if TYPE_CHECKING:
    from seedtrust_ops.status.health import Health
    from seedtrust_ops.status.models import StatusReport

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


def status(as_json: AsJson = False) -> None:
    """Show each job's last run and next tick, the queue, batches on their way, what waits, and open alerts."""
    from seedtrust_ops.cli.console import PlainConsole
    from seedtrust_ops.status import renderer

    standing, health = _standing_and_health()
    if as_json:
        typer.echo(renderer.as_json(standing, health))
    else:
        renderer.print_standing(PlainConsole(), standing, health)


def health(as_json: AsJson = False) -> None:
    """Say in one word how things stand, and why; exit 0 when well, 1 when degraded, 2 when down."""
    from seedtrust_ops.cli.console import PlainConsole
    from seedtrust_ops.status import renderer

    try:
        standing, judged = _standing_and_health()
    except SeedTrustError as error:
        # Nobody can say how things stand, and whoever asks must not take that for well, nor for a little ill.
        typer.echo(strip_control_chars(str(error)), err=True)
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(renderer.health_as_json(standing, judged))
    else:
        renderer.print_health(PlainConsole(), judged)
    raise typer.Exit(judged.level.value)


def watchdog(
    once: Annotated[
        bool, typer.Option("--once", help="Look once and exit: 0, or 1 where there is trouble. For cron.")
    ] = False,
    interval: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=60, help="Seconds between two looks, instead of SEEDTRUST_WATCHDOG_INTERVAL_SECONDS."
        ),
    ] = None,
) -> None:
    """Watch Dagster's daemon, its ticks and the databases from outside, and tell people by letter when they stop."""
    from seedtrust_ops.config import dagster_home, get_settings
    from seedtrust_ops.supervisor.worker_main import told_to_stop
    from seedtrust_ops.watchdog.watchdog_loop import FOLDER, Watchdog, now_in_words, only_watchdog, watch

    def say(line: str) -> None:
        typer.echo(f"{now_in_words()}  {line}")

    folder = dagster_home() / FOLDER
    settings = get_settings().watchdog
    with told_to_stop() as stop, only_watchdog(folder):
        dog = Watchdog(folder, settings, say)
        if once:
            raise typer.Exit(1 if dog.look() else 0)
        seconds = interval or settings.interval_seconds
        say(f"The watchdog looks every {seconds:g} s, and prints what changes.")
        watch(dog, stop, interval_seconds=seconds, say=say)


def _standing_and_health() -> "tuple[StatusReport, Health]":
    from seedtrust_ops.config import get_settings
    from seedtrust_ops.status.collector import collect_status
    from seedtrust_ops.status.health import judge_health

    standing = collect_status()
    return standing, judge_health(
        standing,
        heartbeat_seconds=get_settings().watchdog.heartbeat_seconds,
        dev_env=get_settings().location.dev_env,
    )
