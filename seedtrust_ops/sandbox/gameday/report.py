"""Runs the drill and shows its table; the exit code says whether every trouble was noticed, told, and over in the end.

`drill` plays each trouble, `troubles` causes it.
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
from seedtrust_ops.sandbox.demo.environment import Stage, StagedProgram, set_stage
from seedtrust_ops.sandbox.gameday.drill import Result, play, wait_for_first_batch, wait_until_quiet
from seedtrust_ops.sandbox.gameday.incidents import TROUBLES, Trouble
from seedtrust_ops.sandbox.gameday.job_run_diff import differences
from seedtrust_ops.sandbox.gameday.timeouts import VARIABLES
from seedtrust_ops.supervisor.program import Program

CASES = 200
WIDTH_OF_LOGS = 170


class NoSuchTrouble(SeedTrustError):
    """The drill has no trouble of that name."""


def run_gameday(only: Sequence[str] = (), *, as_json: bool = False) -> int:
    """Play the troubles named in `only`, else all, and print the table; return 0 where every row is good, else 1.

    Raises:
        NoSuchTrouble: naming those that there are.
    """
    troubles = chosen(only)
    console = Console(stderr=as_json)
    if not console.is_terminal:
        console.width = WIDTH_OF_LOGS
    began = time.monotonic()

    def say(sentence: str) -> None:
        console.print(f"{time.monotonic() - began:5.0f} s  {sentence}.", markup=False, highlight=False)

    with _ended_whole(), set_stage(say, cases=CASES, variables=VARIABLES) as stage, _watchdog(stage):
        say("Waiting until a first batch has gone through and all is quiet")
        left = wait_for_first_batch(stage) or wait_until_quiet(stage)
        if left is not None:
            say(f"The stage is not quiet before the drill: {left}")
            return 1
        results = [play(stage, trouble, say) for trouble in troubles]
        say("Comparing JobRun with Dagster's runs")
        unlike = differences(stage.sessions, stage.instance)
    if as_json:
        Console().print_json(json.dumps([_as_json(one) for one in results]))
    else:
        console.print(_table(results))
    for sentence in unlike:
        console.print(Text(f"JobRun: {sentence}", "red"))
    bad = [one.trouble.name for one in results if not one.is_good]
    console.print(
        f"{len(results) - len(bad)} of {len(results)} troubles were noticed in time, told, over in the end, and left "
        f"no cent unaccounted for; JobRun {'equals' if not unlike else 'does not equal'} Dagster's runs. "
        f"{time.monotonic() - began:.0f} s.",
        highlight=False,
    )
    return 1 if bad or unlike else 0


def chosen(only: Sequence[str]) -> Sequence[Trouble]:
    """Return the troubles of these names, in the drill's order; all where none is named."""
    names = {one.name for one in TROUBLES}
    for name in only:
        if name not in names:
            raise NoSuchTrouble(f"There is no trouble {name!r}. There are: {', '.join(one.name for one in TROUBLES)}.")
    return [one for one in TROUBLES if not only or one.name in only]


@contextmanager
def _ended_whole() -> Iterator[None]:
    """Let SIGTERM end the drill as Ctrl-C does, so that nothing that it started is left behind."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _watchdog(stage: Stage) -> Iterator[None]:
    with (stage.folder / "watchdog.log").open("w", buffering=1) as log:
        program = Program(
            name="watchdog",
            command=(sys.executable, "-m", "seedtrust_ops.cli.main", "watchdog"),
            environment=stage.environment,
        )
        watchdog = StagedProgram(program, log)
        try:
            yield
        finally:
            watchdog.stop()


def _table(results: Sequence[Result]) -> Table:
    table = Table(title="Gameday", title_justify="left")
    for header in ("trouble", "noticed by", "after", "at most", "told", "recovered", "money"):
        table.add_column(header, overflow="fold", justify="right" if header in ("after", "at most") else "left")
    for one in results:
        after = one.noticed_after_seconds
        table.add_row(
            one.trouble.name,
            Text(one.notice.by or one.failed_cause or "NOBODY", "" if one.notice.by else "red"),
            f"{after:.0f} s" if after is not None else "-",
            f"{one.limit_seconds:.0f} s",
            Text(", ".join(sorted(one.notice.told)) or "NOBODY", "" if one.notice.told else "red"),
            Text(one.trouble.recovery if one.left is None else f"NOT: {one.left}", "" if one.left is None else "red"),
            Text("agrees to the cent" if one.reconciled else "DIFFERS", "green" if one.reconciled else "red"),
        )
    return table


def _as_json(one: Result) -> dict[str, object]:
    return {
        "trouble": one.trouble.name,
        "noticed_by": one.notice.by,
        "noticed_after_seconds": one.noticed_after_seconds,
        "limit_seconds": one.limit_seconds,
        "told": sorted(one.notice.told),
        "recovered": one.left is None,
        "recovery": one.trouble.recovery,
        "left": one.left,
        "reconciled": one.reconciled,
        "good": one.is_good,
    }
