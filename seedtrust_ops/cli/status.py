"""`seedtrust-ops status`, `health` and `watchdog`: the state of the system, on demand or continuously.

None of them imports Dagster: they must respond at once, even while Dagster is down.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.formatting import strip_control_chars

if TYPE_CHECKING:
    from seedtrust_ops.status.health import Health
    from seedtrust_ops.status.models import StatusReport

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def status(as_json: AsJson = False) -> None:
    """Show the state of the system on one screen.

    It lists each job's last run and next tick, the run queue, batches in progress, pending email, events and reports,
    and open alerts.
    """
    from seedtrust_ops.cli.console import PlainConsole
    from seedtrust_ops.status import renderer

    report, current_health = _collect()
    if as_json:
        typer.echo(renderer.status_as_json(report, current_health))
    else:
        renderer.print_status(PlainConsole(), report, current_health)


def health(as_json: AsJson = False) -> None:
    """Check whether the system is healthy, degraded or down, and say why.

    Exit codes: 0 healthy, 1 degraded, 2 down.
    """
    from seedtrust_ops.cli.console import PlainConsole
    from seedtrust_ops.status import renderer

    try:
        report, current_health = _collect()
    except SeedTrustError as error:
        # The state is unknown. Exit 2, because a caller must not take that for healthy or degraded.
        typer.echo(strip_control_chars(str(error)), err=True)
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(renderer.health_as_json(report, current_health))
    else:
        renderer.print_health(PlainConsole(), current_health)
    raise typer.Exit(current_health.level.value)


def watchdog(
    once: Annotated[
        bool,
        typer.Option("--once", help="Run one round and exit: 0 if all is well, 1 if there is an incident. For cron."),
    ] = False,
    interval: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=60,
            help="Seconds between two rounds.",
            show_default="SEEDTRUST_WATCHDOG_INTERVAL_SECONDS, or 15",
        ),
    ] = None,
) -> None:
    """Alert people when Dagster or a database stops.

    It checks the heartbeats of Dagster's daemon, the ticks of schedules and sensors, and both databases from a
    separate process, and notifies people by email, PostHog and the internal API. It runs until Ctrl-C or SIGTERM.
    """
    from seedtrust_ops.config import dagster_home, get_settings
    from seedtrust_ops.supervisor.worker_main import stop_on_signals
    from seedtrust_ops.watchdog.watchdog_loop import (
        STATE_FOLDER,
        Watchdog,
        hold_watchdog_lock,
        log_timestamp,
        run_until_stopped,
    )

    def log(line: str) -> None:
        typer.echo(f"{log_timestamp()}  {line}")

    folder = dagster_home() / STATE_FOLDER
    settings = get_settings().watchdog
    with stop_on_signals() as stop, hold_watchdog_lock(folder):
        instance = Watchdog(folder, settings, log)
        if once:
            raise typer.Exit(1 if instance.run_once() else 0)
        seconds = interval or settings.interval_seconds
        log(f"Watchdog started. It checks every {seconds:g} s and logs changes only.")
        run_until_stopped(instance, stop, interval_seconds=seconds, log=log)


def _collect() -> "tuple[StatusReport, Health]":
    from seedtrust_ops.config import get_settings
    from seedtrust_ops.status.collector import collect_status
    from seedtrust_ops.status.health import evaluate_health

    report = collect_status()
    return report, evaluate_health(
        report,
        heartbeat_seconds=get_settings().watchdog.heartbeat_seconds,
        dev_env=get_settings().location.dev_env,
    )
