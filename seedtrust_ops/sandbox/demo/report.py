"""Shows the demo to people: progress while it is played, then each batch in words and both ledgers side by side.

`playing` does the work; the exit code says whether everything reconciled.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from seedtrust_ops.sandbox.demo.environment import set_stage
from seedtrust_ops.sandbox.demo.reconciliation import Reconciliation, reconcile
from seedtrust_ops.sandbox.demo.runner import Outcome, Standing, play
from seedtrust_ops.sandbox.demo.scenarios import SHORT, WHOLE, draft_scenes, leave_legacy_batch
from seedtrust_ops.sandbox.demo.scheduled_jobs import (
    ask_for_reports,
    first_rows_of_csv,
    play_week,
    story_of,
    wait_for_job_run,
)
from seedtrust_ops.sandbox.stack import World
from seedtrust_ops.supervisor.worker_main import told_to_stop
from seedtrust_ops.tables import JobRun

DEADLINE_SECONDS = 600.0
MIRROR_SECONDS = 120.0
NEWS_SHOWN = 8
LOG_LINES_SHOWN = 40
WIDTH_OF_LOGS = 160
COLOURS = {"completed": "green", "completed_with_errors": "yellow", "failed": "red", "processing": "cyan"}


class DemoStopped(Exception):
    """Somebody pressed Ctrl-C."""


class _Screen:
    """What is on the screen: the latest news and how each batch stands."""

    def __init__(self, console: Console, live: Live) -> None:
        self._console = console
        self._live = live
        self._news: list[str] = []
        self._standings: list[Standing] = []
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has been on."""
        return time.monotonic() - self._began

    def say(self, sentence: str) -> None:
        """Add a piece of news."""
        line = f"{self.seconds:5.0f} s  {sentence}."
        if not self._console.is_terminal:
            self._console.print(line, markup=False, highlight=False)
        self._news.append(line)
        self._draw()

    def show(self, standings: list[Standing]) -> None:
        """Show how the batches stand now; a batch's new status is news too."""
        before = {one.scene.batch.batch_id: one.status for one in self._standings}
        self._standings = standings
        for one in standings:
            if before.get(one.scene.batch.batch_id, "draft") != one.status and one.scene.name != "legacy":
                self.say(f"Batch {one.scene.batch.batch_id} is {one.status}: {_counts(one)}")
        self._draw()

    def _draw(self) -> None:
        news = Text("\n".join(self._news[-NEWS_SHOWN:]))
        self._live.update(Group(_progress(self._standings, self.seconds), news))


def run_demo(*, short: bool = False) -> int:
    """Play the demo; return the exit code: 0 where both ledgers agree to the cent, else 1."""
    console = Console()
    if not console.is_terminal:
        # A log has no edge at which its lines must break.
        console.width = WIDTH_OF_LOGS
    with told_to_stop() as stop, _screen(console) as screen:

        def look(standings: list[Standing]) -> None:
            screen.show(standings)
            if stop.is_set():
                raise DemoStopped

        try:
            with set_stage(screen.say) as stage:
                scenes = [*draft_scenes(stage, SHORT if short else WHOLE), leave_legacy_batch(stage)]
                with stage.sessions.begin() as session:
                    ask_for_reports(session)
                outcome = play(stage, scenes, say=screen.say, show=look, deadline_seconds=DEADLINE_SECONDS)
                screen.say("Running what has a time of day or week")
                week_trouble = play_week(stage, screen.say)
                screen.say("Waiting until JobRun has caught up with Dagster")
                wait_for_job_run(stage, seconds=MIRROR_SECONDS)
                screen.say("Comparing both ledgers")
                with stage.sessions() as session:
                    result = reconcile(session, stage.bank)
                    runs = _runs_in_words(session)
                    week = _week_table(story_of(session), stage.world)
                report = _report_table(first_rows_of_csv(stage.world.outside.storage))
                succeeded = outcome.trouble is None and result.agrees and week_trouble is None
                last_words = "" if succeeded else stage.last_words_of_worker(LOG_LINES_SHOWN)
                screen.say("Stopping what the demo started")
        except DemoStopped:
            screen.say("Stopped by you, and so is all that the demo started")
            return 1
    console.print(week, report)
    if week_trouble is not None:
        console.print(f"[red]{week_trouble}[/red]", highlight=False)
    _report(console, outcome, result, runs, last_words, screen.seconds)
    return 0 if succeeded else 1


@contextmanager
def _screen(console: Console) -> Iterator[_Screen]:
    with Live(console=console, refresh_per_second=4, transient=True, auto_refresh=console.is_terminal) as live:
        yield _Screen(console, live)


def _progress(standings: Sequence[Standing], seconds: float) -> Table:
    table = Table(title=f"SeedTrust's transfers in trouble, {seconds:.0f} s", title_justify="left")
    for header in ("batch", "meets", "status", "transfers"):
        table.add_column(header)
    for one in standings:
        table.add_row(
            str(one.scene.batch.batch_id), one.scene.meets, Text(one.status, COLOURS.get(one.status, "")), _counts(one)
        )
    return table


def _counts(one: Standing) -> str:
    return ", ".join(f"{number} {status}" for status, number in sorted(one.counts.items()))


def _report(
    console: Console, outcome: Outcome, result: Reconciliation, runs: str, last_words: str, seconds: float
) -> None:
    compared = {one.batch_id: one for one in result.batches}
    table = Table(title="What became of each batch", title_justify="left")
    for header in ("batch", "met", "and is"):
        table.add_column(header, overflow="fold")
    for header in ("requests", "at the bank", "booked", "difference"):
        table.add_column(header, justify="right")
    for one in outcome.standings:
        cents = compared.pop(one.scene.batch.batch_id)
        table.add_row(
            *(str(one.scene.batch.batch_id), one.scene.meets, _in_words(one), str(cents.requests)),
            *(_dollars(cents.at_bank_cents), _dollars(cents.booked_cents), _dollars(cents.difference_cents)),
        )
    past = compared.values()
    table.add_row(
        *("", f"{len(past)} batches of the past; one ACH came back weeks later", "its reversal is booked", ""),
        *(_dollars(sum(one.at_bank_cents for one in past)), _dollars(sum(one.booked_cents for one in past))),
        _dollars(sum(one.difference_cents for one in past)),
    )
    table.add_section()
    total = result.at_bank_cents - result.booked_cents
    table.add_row("", "", "all", "", _dollars(result.at_bank_cents), _dollars(result.booked_cents), _dollars(total))
    console.print(table)
    console.print(
        f"The bank moved {_dollars(result.out_cents)} out and {_dollars(result.back_cents)} back: "
        f"{result.at_bank_cents} cents. SeedTrust's ledger booked {result.booked_cents} cents. "
        f"Difference: {total} cents.",
        highlight=False,
    )
    console.print(runs, highlight=False)
    for sentence in _what_is_wrong(outcome, result):
        console.print(f"[red]{sentence}[/red]", highlight=False)
    if last_words:
        console.print("The last that the worker's processes said:", last_words, sep="\n", markup=False, highlight=False)
        return
    console.print(
        f"No key moved money twice, and every account's balance is the sum of its entries. {seconds:.0f} s.\n"
        "To look at it in the UI, run `make dev`: it starts everything and prints where it listens.",
        highlight=False,
    )


def _week_table(story: Sequence[tuple[str, str]], world: World) -> Table:
    table = Table(title="The rest of the week", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for what, how_much in story:
        table.add_row(what, how_much)
    table.add_row("letters in the mail server", str(len(world.mailbox.control.message_ids())))
    posts = world.outside.internal_api.posts()
    table.add_row("status posts", "; ".join(f"{post['component']} {post['status']}" for post in posts[-4:]) or "none")
    return table


def _report_table(rows: Sequence[Sequence[str]]) -> Table:
    width = max((len(row) for row in rows), default=0)
    table = Table(
        title="The first rows of the account balances report, opened", title_justify="left", show_header=False
    )
    for _ in range(width):
        table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _runs_in_words(session: Session) -> str:
    rows = session.execute(
        select(JobRun.task_name, JobRun.status, func.count().label("number"))
        .group_by(JobRun.task_name, JobRun.status)
        .order_by(JobRun.task_name, JobRun.status)
    ).all()
    runs: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        runs[row.task_name].append(f"{row.number} {row.status}")
    return "JobRun tells of " + "; ".join(f"{name}: {', '.join(counts)}" for name, counts in runs.items()) + "."


def _what_is_wrong(outcome: Outcome, result: Reconciliation) -> Iterator[str]:
    if outcome.trouble is not None:
        yield outcome.trouble
    if result.paid_more_than_once:
        yield f"Paid more than once: {', '.join(result.paid_more_than_once)}."
    if result.transactions_that_differ:
        yield f"Both ledgers differ about transactions {_listed(result.transactions_that_differ)}."
    if result.unknown_references:
        yield f"The bank has transfers that SeedTrust does not know: {', '.join(result.unknown_references)}."
    if result.accounts_that_do_not_add_up:
        yield f"The balance of accounts {_listed(result.accounts_that_do_not_add_up)} is not the sum of their entries."


def _in_words(one: Standing) -> str:
    reasons = f" ({'; '.join(one.reasons)})" if one.reasons else ""
    return f"{one.status.replace('_', ' ')}: {_counts(one)}{reasons}"


def _listed(ids: Sequence[int]) -> str:
    return ", ".join(str(one) for one in ids)


def _dollars(cents: int) -> str:
    return f"{'-' if cents < 0 else ''}${abs(cents) / 100:,.2f}"
