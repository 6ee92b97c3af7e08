"""`seedtrust-ops status`, `health` and `watchdog`: how things stand, and who looks while nobody does.

The commands are registered in `cli`. None of them loads Dagster: they must answer at once, and when it is dead.
"""

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


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
    from seedtrust_ops.config import dagster_home, environment
    from seedtrust_ops.processes.running import told_to_stop
    from seedtrust_ops.watchdog.watching import FOLDER, Watchdog, now_in_words, only_watchdog, watch

    def say(line: str) -> None:
        typer.echo(f"{now_in_words()}  {line}")

    folder = dagster_home() / FOLDER
    settings = environment().watchdog
    with told_to_stop() as stop, only_watchdog(folder):
        dog = Watchdog(folder, settings, say)
        if once:
            raise typer.Exit(1 if dog.look() else 0)
        seconds = interval or settings.interval_seconds
        say(f"The watchdog looks every {seconds:g} s, and prints what changes.")
        watch(dog, stop, interval_seconds=seconds, say=say)
