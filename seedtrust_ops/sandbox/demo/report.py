"""Runs the demo and prints it: progress while it runs, then each batch's result and both ledgers side by side.

The exit code says whether everything reconciled. The scenarios are run by `runner`.
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

from seedtrust_ops.formatting import format_dollars
from seedtrust_ops.sandbox.demo.environment import demo_environment
from seedtrust_ops.sandbox.demo.notified import Notified, read_notified
from seedtrust_ops.sandbox.demo.reconciliation import Reconciliation, reconcile
from seedtrust_ops.sandbox.demo.runner import BatchProgress, Outcome, run_scenarios
from seedtrust_ops.sandbox.demo.scenarios import ALL, LEGACY_NAME, SHORT, create_legacy_batch, draft_scenarios
from seedtrust_ops.sandbox.demo.scheduled_jobs import (
    csv_report_rows,
    request_reports,
    run_scheduled_jobs,
    summarize_results,
    wait_for_job_run_sync,
)
from seedtrust_ops.sandbox.stack import SandboxStack
from seedtrust_ops.supervisor.worker_main import stop_on_signals
from seedtrust_ops.tables import JobRun

DEADLINE_SECONDS = 600.0
JOB_RUN_SYNC_SECONDS = 120.0
VARIABLES = {"SEEDTRUST_HEALTH_INTERVAL_SECONDS": "5", "SEEDTRUST_HEALTH_QUIET_SECONDS": "5"}
"""Alerts open and resolve within seconds, where production takes 20 and 60."""
MESSAGES_SHOWN = 8
LOG_LINES_SHOWN = 40
LOG_WIDTH = 160
STATUS_COLORS = {"completed": "green", "completed_with_errors": "yellow", "failed": "red", "processing": "cyan"}


class DemoStopped(Exception):
    """The user pressed Ctrl-C."""


class _ProgressDisplay:
    """The live display: the progress of every batch and the latest messages."""

    def __init__(self, console: Console, live: Live) -> None:
        self._console = console
        self._live = live
        self._messages: list[str] = []
        self._batches: list[BatchProgress] = []
        self._started_at = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the demo started."""
        return time.monotonic() - self._started_at

    def print_message(self, message: str) -> None:
        """Add a message."""
        line = f"{self.seconds:5.0f} s  {message}."
        if not self._console.is_terminal:
            self._console.print(line, markup=False, highlight=False)
        self._messages.append(line)
        self._draw()

    def show_progress(self, batches: list[BatchProgress]) -> None:
        """Show the progress of all batches; a batch's new status is also a message."""
        previous = {batch.scenario.batch.batch_id: batch.status for batch in self._batches}
        self._batches = batches
        for batch in batches:
            batch_id = batch.scenario.batch.batch_id
            if previous.get(batch_id, "draft") != batch.status and batch.scenario.name != LEGACY_NAME:
                self.print_message(f"Batch {batch_id} is {batch.status}: {_format_counts(batch)}")
        self._draw()

    def _draw(self) -> None:
        messages = Text("\n".join(self._messages[-MESSAGES_SHOWN:]))
        self._live.update(Group(_progress_table(self._batches, self.seconds), messages))


def run_demo(*, short: bool = False) -> int:
    """Run the demo; return the exit code: 0 if both ledgers agree to the cent and every job succeeded, else 1."""
    console = Console()
    if not console.is_terminal:
        # Output to a file or pipe has no terminal width at which lines must wrap.
        console.width = LOG_WIDTH
    with stop_on_signals() as stop, _progress_display(console) as display:

        def show_progress(batches: list[BatchProgress]) -> None:
            display.show_progress(batches)
            if stop.is_set():
                raise DemoStopped

        try:
            with demo_environment(display.print_message, variables=VARIABLES) as env:
                scenarios = [*draft_scenarios(env, SHORT if short else ALL), create_legacy_batch(env)]
                with env.sessions.begin() as session:
                    request_reports(session)
                outcome = run_scenarios(
                    env,
                    scenarios,
                    print_message=display.print_message,
                    show_progress=show_progress,
                    deadline_seconds=DEADLINE_SECONDS,
                )
                display.print_message("Running the daily and weekly jobs")
                jobs_failure = run_scheduled_jobs(env, display.print_message)
                display.print_message("Waiting until JobRun has every Dagster run")
                wait_for_job_run_sync(env, seconds=JOB_RUN_SYNC_SECONDS)
                display.print_message("Comparing SeedTrust's ledger with the bank's")
                with env.sessions() as session:
                    result = reconcile(session, env.bank)
                    runs = _summarize_runs(session)
                    jobs_table = _jobs_table(summarize_results(session), env.stack)
                    notified_table = _notified_table(read_notified(session))
                report_table = _report_table(csv_report_rows(env.stack.services.storage))
                succeeded = outcome.failure is None and result.agrees and jobs_failure is None
                worker_log = "" if succeeded else env.worker_log_tail(LOG_LINES_SHOWN)
                display.print_message("Stopping everything the demo started")
        except DemoStopped:
            display.print_message("Stopped by Ctrl-C; everything the demo started has been stopped and removed")
            return 1
    console.print(jobs_table, report_table, notified_table)
    if jobs_failure is not None:
        console.print(f"[red]{jobs_failure}[/red]", highlight=False)
    _print_results(console, outcome, result, runs, worker_log, display.seconds)
    return 0 if succeeded else 1


@contextmanager
def _progress_display(console: Console) -> Iterator[_ProgressDisplay]:
    with Live(console=console, refresh_per_second=4, transient=True, auto_refresh=console.is_terminal) as live:
        yield _ProgressDisplay(console, live)


def _progress_table(batches: Sequence[BatchProgress], seconds: float) -> Table:
    table = Table(title=f"Sending batches while things fail ({seconds:.0f} s)", title_justify="left")
    for header in ("batch", "fault", "status", "transfers"):
        table.add_column(header)
    for batch in batches:
        table.add_row(
            str(batch.scenario.batch.batch_id),
            batch.scenario.fault,
            Text(batch.status, STATUS_COLORS.get(batch.status, "")),
            _format_counts(batch),
        )
    return table


def _format_counts(batch: BatchProgress) -> str:
    return ", ".join(f"{number} {status}" for status, number in sorted(batch.counts.items()))


def _print_results(
    console: Console, outcome: Outcome, result: Reconciliation, runs: str, worker_log: str, seconds: float
) -> None:
    by_batch = {comparison.batch_id: comparison for comparison in result.batches}
    table = Table(title="Result of each batch", title_justify="left")
    for header in ("batch", "fault", "result"):
        table.add_column(header, overflow="fold")
    for header in ("requests", "at the bank", "in our ledger", "difference"):
        table.add_column(header, justify="right")
    for batch in outcome.batches:
        cents = by_batch.pop(batch.scenario.batch.batch_id)
        table.add_row(
            *(str(batch.scenario.batch.batch_id), batch.scenario.fault, _summarize_batch(batch), str(cents.requests)),
            *map(format_dollars, (cents.at_bank_cents, cents.booked_cents, cents.difference_cents)),
        )
    past = by_batch.values()
    table.add_row(
        *("", f"{len(past)} past batches; the bank returned one ACH weeks later", "return booked as a reversal", ""),
        format_dollars(sum(one.at_bank_cents for one in past)),
        format_dollars(sum(one.booked_cents for one in past)),
        format_dollars(sum(one.difference_cents for one in past)),
    )
    table.add_section()
    total = result.at_bank_cents - result.booked_cents
    amounts = (result.at_bank_cents, result.booked_cents, total)
    table.add_row("", "", "total", "", *map(format_dollars, amounts))
    console.print(table)
    console.print(
        f"At the bank, {format_dollars(result.out_cents)} went out and {format_dollars(result.back_cents)} came back. "
        f"Of this, a person explained {format_dollars(result.explained_cents)} as not ours; "
        f"{format_dollars(result.at_bank_cents)} is ours. SeedTrust's ledger has "
        f"{format_dollars(result.booked_cents)}. Difference: {total} cents.",
        highlight=False,
    )
    console.print(runs, highlight=False)
    for problem in _problems(outcome, result):
        console.print(f"[red]{problem}[/red]", highlight=False)
    if worker_log:
        console.print(
            f"[red]FAILED[/red] after {seconds:.0f} s. The last {LOG_LINES_SHOWN} lines of the worker's log:",
            highlight=False,
        )
        console.print(worker_log, markup=False, highlight=False)
        return
    console.print(
        f"[green]PASSED[/green] in {seconds:.0f} s: no transfer was paid twice, and every account balance equals the "
        "sum of its ledger entries.\n"
        "To explore SeedTrust Ops in the Dagster UI, run `make dev`. It starts everything and prints the address.",
        highlight=False,
    )


def _jobs_table(results: Sequence[tuple[str, str]], stack: SandboxStack) -> Table:
    table = Table(title="Results of the other jobs", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, result in results:
        table.add_row(label, result)
    table.add_row("emails at the mail server", str(len(stack.mailbox.control.message_ids())))
    posts = stack.services.internal_api.posted_statuses()
    latest = "; ".join(f"{post['component']} {post['status']}" for post in posts[-4:])
    table.add_row("latest posts to the internal API", latest or "none")
    return table


def _notified_table(notified: Sequence[Notified]) -> Table:
    table = Table(title="Who was notified of each incident", title_justify="left")
    for header in ("incident", "severity", "times", "notified"):
        table.add_column(header, overflow="fold", justify="right" if header == "times" else "left")
    for one in notified:
        who = Text(", ".join(one.who) or "NOBODY", "" if one.who else "red")
        table.add_row(one.incident, one.severity, str(one.times), who)
    return table


def _report_table(rows: Sequence[Sequence[str]]) -> Table:
    width = max((len(row) for row in rows), default=0)
    table = Table(title="First rows of the account balances report (CSV)", title_justify="left", show_header=False)
    for _ in range(width):
        table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _summarize_runs(session: Session) -> str:
    rows = session.execute(
        select(JobRun.task_name, JobRun.status, func.count().label("number"))
        .group_by(JobRun.task_name, JobRun.status)
        .order_by(JobRun.task_name, JobRun.status)
    ).all()
    runs: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        runs[row.task_name].append(f"{row.number} {row.status}")
    return (
        "Runs in JobRun: " + "; ".join(f"{name}: {', '.join(counts)}" for name, counts in runs.items()) + ". "
        "The demo's faults make some runs of process_huntington_batch end in ERROR; later runs finish those batches."
    )


def _problems(outcome: Outcome, result: Reconciliation) -> Iterator[str]:
    if outcome.failure is not None:
        yield outcome.failure
    if result.paid_more_than_once:
        yield f"Paid more than once: {', '.join(result.paid_more_than_once)}."
    if result.mismatched_transactions:
        yield f"The two ledgers differ for transactions {_join_ids(result.mismatched_transactions)}."
    if result.unknown_references:
        yield f"The bank has transfers that SeedTrust does not know: {', '.join(result.unknown_references)}."
    if result.unbalanced_accounts:
        yield f"The balance does not match the ledger for accounts {_join_ids(result.unbalanced_accounts)}."


def _summarize_batch(batch: BatchProgress) -> str:
    reasons = f" ({'; '.join(batch.reasons)})" if batch.reasons else ""
    return f"{batch.status.replace('_', ' ')}: {_format_counts(batch)}{reasons}"


def _join_ids(ids: Sequence[int]) -> str:
    return ", ".join(str(one) for one in ids)
