"""Runs the drill and prints its table; the exit code says whether every incident passed.

`drill` runs each incident, `incidents` causes it.
"""

import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.table import Table
from rich.text import Text

from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.sandbox.demo.environment import DemoEnvironment, RestartableProgram, demo_environment
from seedtrust_ops.sandbox.gameday.drill import (
    Result,
    job_run_differences,
    run_incident,
    wait_for_first_batch,
    wait_for_recovery,
)
from seedtrust_ops.sandbox.gameday.incidents import INCIDENTS, VARIABLES, Incident
from seedtrust_ops.supervisor.program import Program

CASES = 250
LOG_WIDTH = 170


class UnknownIncident(SeedTrustError):
    """The drill has no incident with this name."""


def run_gameday(only: Sequence[str] = (), *, as_json: bool = False) -> int:
    """Run the incidents named in `only`, or all, and print the table; return 0 if every incident passed, else 1.

    Raises:
        UnknownIncident: if a name in `only` is unknown; the message lists the known ones.
    """
    incidents = select_incidents(only)
    console = Console(stderr=as_json)
    if not console.is_terminal:
        console.width = LOG_WIDTH
    started_at = time.monotonic()

    def print_message(message: str) -> None:
        console.print(f"{time.monotonic() - started_at:5.0f} s  {message}.", markup=False, highlight=False)

    with (
        _exit_on_sigterm(),
        demo_environment(print_message, cases=CASES, variables=VARIABLES) as env,
        _watchdog(env),
    ):
        print_message("Waiting until a first batch is sent and nothing is open")
        problem = wait_for_first_batch(env) or wait_for_recovery(env)
        if problem is not None:
            print_message(f"The drill cannot start: {problem}")
            return 1
        results = [run_incident(env, incident, print_message) for incident in incidents]
        print_message("Comparing JobRun with Dagster's runs")
        differences = job_run_differences(env.sessions, env.instance)
    if as_json:
        Console().print_json(json.dumps([_as_json(result) for result in results]))
    else:
        console.print(_table(results))
    for difference in differences:
        console.print(Text(difference, "red"))
    failed = [result.incident.name for result in results if not result.passed]
    console.print(
        f"{len(results) - len(failed)} of {len(results)} incidents passed: detected in time, notified, recovered, and "
        f"the ledgers agree to the cent. JobRun {'differs from' if differences else 'matches'} Dagster's runs. "
        f"Took {time.monotonic() - started_at:.0f} s.",
        highlight=False,
    )
    return 1 if failed or differences else 0


def select_incidents(only: Sequence[str]) -> Sequence[Incident]:
    """Return the incidents with these names, in the drill's order; all of them if `only` is empty."""
    names = [incident.name for incident in INCIDENTS]
    for name in only:
        if name not in names:
            raise UnknownIncident(f"There is no incident named {name!r}. Choose from: {', '.join(names)}.")
    return [incident for incident in INCIDENTS if not only or incident.name in only]


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Make SIGTERM end the drill as Ctrl-C does, so that everything it started is stopped."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous_handler = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous_handler)


@contextmanager
def _watchdog(env: DemoEnvironment) -> Iterator[None]:
    with (env.folder / "watchdog.log").open("w", buffering=1) as log:
        program = Program(
            name="watchdog",
            command=(sys.executable, "-m", "seedtrust_ops.cli.main", "watchdog"),
            environment=env.variables,
        )
        watchdog = RestartableProgram(program, log)
        try:
            yield
        finally:
            watchdog.stop()


def _table(results: Sequence[Result]) -> Table:
    table = Table(title="Gameday", title_justify="left")
    for header in ("incident", "detected by", "after", "limit", "notified", "recovered", "money"):
        table.add_column(header, overflow="fold", justify="right" if header in ("after", "limit") else "left")
    for result in results:
        incident, detection, after = result.incident, result.detection, result.detected_after_seconds
        problem = result.remaining_problem
        table.add_row(
            incident.name,
            Text(detection.rule or result.cause_error or "NOT DETECTED", "" if detection.rule else "red"),
            f"{after:.0f} s" if after is not None else "-",
            f"{result.limit_seconds:.0f} s",
            Text(", ".join(sorted(detection.notified)) or "NOBODY", "" if detection.notified else "red"),
            Text(incident.recovery if problem is None else f"NO: {problem}", "" if problem is None else "red"),
            Text("ledgers agree" if result.reconciled else "LEDGERS DIFFER", "green" if result.reconciled else "red"),
        )
    return table


def _as_json(result: Result) -> dict[str, object]:
    return {
        "incident": result.incident.name,
        "detected_by": result.detection.rule,
        "detected_after_seconds": result.detected_after_seconds,
        "limit_seconds": result.limit_seconds,
        "notified": sorted(result.detection.notified),
        "recovered": result.remaining_problem is None,
        "recovery": result.incident.recovery,
        "remaining_problem": result.remaining_problem,
        "reconciled": result.reconciled,
        "passed": result.passed,
    }
