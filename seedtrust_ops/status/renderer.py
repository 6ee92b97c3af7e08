"""Renders a status report: for people on one screen of 80 or more columns, or as one JSON object."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seedtrust_ops.formatting import (
    format_dollars,
    format_short_date,
    format_short_duration,
    single_line,
    strip_control_chars,
)
from seedtrust_ops.status.health import HEARTBEAT_LATE, Health, Level
from seedtrust_ops.status.models import (
    Backlog,
    BatchProgress,
    DagsterStatus,
    JobStatus,
    OpenAlert,
    RunCount,
    StatusReport,
    Workload,
)

WIDE_CONSOLE_COLUMNS = 118
PART_LATE_SECONDS = 75
"""When a single part of the daemon counts as late: its scheduler sends a heartbeat every 60 s."""
_SEVERITY_LABELS = {
    "CRITICAL": ("CRIT", "bold red"),
    "HIGH": ("HIGH", "red"),
    "MEDIUM": ("MED", "yellow"),
    "LOW": ("LOW", ""),
}
_RUN_LABELS = {
    "SUCCESS": ("ok", "green"),
    "FAILURE": ("failed", "bold red"),
    "CANCELED": ("canceled", "yellow"),
    "CANCELING": ("stopping", "yellow"),
    "QUEUED": ("queued", "cyan"),
    "NOT_STARTED": ("queued", "cyan"),
    "STARTING": ("starting", "cyan"),
    "STARTED": ("running", "cyan"),
}
_LEVEL_LABELS = {
    Level.HEALTHY: ("healthy", "green"),
    Level.DEGRADED: ("degraded", "yellow"),
    Level.DOWN: ("down", "bold red"),
}


def status_as_json(report: StatusReport, health: Health) -> str:
    """Return everything as one JSON object; times are ISO 8601 in UTC, money is cents."""
    summary = {"level": health.level.name.lower(), "reasons": [reason.message for reason in health.reasons]}
    return json.dumps({"health": summary, **asdict(report)}, default=_encode, indent=2)


def health_as_json(report: StatusReport, health: Health) -> str:
    """Return the health level and its reasons as one JSON object."""
    reasons = [{"level": reason.level.name.lower(), "message": reason.message} for reason in health.reasons]
    level = {"level": health.level.name.lower(), "exit_code": health.level.value}
    return json.dumps({**level, "at": report.at, "reasons": reasons}, default=_encode, indent=2)


def print_health(console: Console, health: Health) -> None:
    """Print the health level and one line per reason."""
    label, style = _LEVEL_LABELS[health.level]
    console.print(Text.assemble("SeedTrust Ops is ", (label, style), "."))
    for reason in health.reasons:
        console.print(Text(f"- {strip_control_chars(reason.message)}", _LEVEL_LABELS[reason.level][1]), soft_wrap=True)


def print_status(console: Console, report: StatusReport, health: Health) -> None:
    """Print the whole status for an on-call engineer."""
    label, style = _LEVEL_LABELS[health.level]
    console.print(Text.assemble(f"{report.at:%Y-%m-%d %H:%M:%S} UTC: SeedTrust Ops is ", (label, style), "."))
    for reason in health.reasons:
        if reason.level is Level.DOWN:
            console.print(Text(strip_control_chars(reason.message), "bold red"))
    if report.dagster is not None:
        console.print(_daemon_line(report.dagster, report.at))
        for note in _shadow_line(report.dagster.jobs):
            console.print(note, soft_wrap=True)
        console.print(
            _jobs_table(
                report.dagster.jobs,
                report.at,
                is_silent=_is_silent(report.dagster, report.at),
                wide=console.width >= WIDE_CONSOLE_COLUMNS,
            )
        )
        console.print(_queue_line(report.dagster, report.at))
    if report.workload is not None:
        for line in _workload_lines(report.workload, report.at):
            console.print(line)
        console.print(_alerts_table(report.workload, report.at))


def format_age(moment: datetime, now: datetime) -> str:
    """Return the time between `moment` and `now` in short form: 5s, 12m, 3h, 4d."""
    return format_short_duration(abs((now - moment).total_seconds()))


def _daemon_line(dagster: DagsterStatus, now: datetime) -> Text:
    if not dagster.heartbeats:
        return Text("Daemon: never run on this database. Start `seedtrust-ops worker`.", "bold red")
    newest = max(dagster.heartbeats.values())
    if _is_silent(dagster, now):
        return Text(f"Daemon: silent for {format_age(newest, now)} (last heartbeat {newest:%H:%M:%S} UTC).", "bold red")
    late = {
        daemon: heartbeat
        for daemon, heartbeat in dagster.heartbeats.items()
        if (now - heartbeat).total_seconds() > PART_LATE_SECONDS
    }
    if not late:
        return Text(f"Daemon: running, last heartbeat {format_age(newest, now)} ago.")
    ages = ", ".join(
        f"{daemon.replace('_', ' ').lower()} {format_age(heartbeat, now)} ago"
        for daemon, heartbeat in sorted(late.items())
    )
    return Text(f"Daemon: late heartbeats ({ages}).", "bold red")


def _is_silent(dagster: DagsterStatus, now: datetime) -> bool:
    return all(now - heartbeat > HEARTBEAT_LATE for heartbeat in dagster.heartbeats.values())


def _shadow_line(jobs: Sequence[JobStatus]) -> Iterator[Text]:
    """Yield the line that lists the jobs in shadow mode, if there are any."""
    names = [job.name for job in jobs if job.is_in_shadow_mode]
    if names:
        yield Text(f"Shadow mode (these jobs only record decisions): {', '.join(names)}.", "bold magenta")


def _jobs_table(jobs: Sequence[JobStatus], now: datetime, *, is_silent: bool, wide: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    headers = ["job or sensor", "sev", "last run", "ago", "took", "next tick"]
    for header in headers + (["launched by"] if wide else []):
        table.add_column(header, no_wrap=True, justify="right" if header in ("ago", "took") else "left")
    for job in jobs:
        label, style = _SEVERITY_LABELS.get(job.severity or "", ("", ""))
        run_label, run_style = _RUN_LABELS.get(job.last_run_status or "", ((job.last_run_status or "-").lower(), ""))
        cells = [
            Text(job.name),
            Text(label, style),
            Text(run_label, run_style) if job.severity else Text(""),
            Text(format_age(job.last_run_at, now) if job.last_run_at else ""),
            Text(format_short_duration(job.last_run_seconds) if job.last_run_seconds is not None else ""),
            _tick(job, now, is_silent=is_silent),
        ]
        launched_by = job.automation if job.automation != job.name else ""
        table.add_row(*cells, *([Text(launched_by or "manual")] if wide and job.severity else []))
    return table


def _tick(job: JobStatus, now: datetime, *, is_silent: bool) -> Text:
    if job.automation is None:
        return Text("manual", "dim")
    if job.state == "STOPPED":
        return Text("off", "yellow")
    failed = " failed" if job.last_tick_status == "FAILURE" else ""
    if job.silent_at is not None and now >= job.silent_at:
        return Text(f"stopped {format_age(job.last_tick_at or job.silent_at, now)} ago", "bold red")
    if job.next_tick_at is None:
        return Text("when daemon starts", "dim")
    if job.automation.endswith("_sensor"):
        last = f"last {format_age(job.last_tick_at, now)} ago" if job.last_tick_at else "first due"
        return Text(last + failed, "red" if failed else "")
    if is_silent:
        # When it is due says nothing as long as nobody evaluates it.
        return Text("unknown", "yellow")
    if job.next_tick_at > now:
        return Text(
            f"in {format_age(job.next_tick_at, now)}" + (", last" + failed if failed else ""), "red" if failed else ""
        )
    return Text(f"due {format_age(job.next_tick_at, now)} ago" + failed, "red" if failed else "yellow")


def _queue_line(dagster: DagsterStatus, now: datetime) -> Text:
    queued = _summarize_runs(dagster.queued, now) or "none"
    in_progress = _summarize_runs(dagster.in_progress, now) or "none"
    return Text.assemble("Runs queued: ", (queued, "cyan" if dagster.queued else ""), f". In progress: {in_progress}.")


def _summarize_runs(counts: Iterable[RunCount], now: datetime) -> str:
    return ", ".join(
        f"{strip_control_chars(one.job)} {one.runs} (oldest {format_age(one.oldest_at, now)})" for one in counts
    )


def _workload_lines(workload: Workload, now: datetime) -> Iterator[Text | Table]:
    batches = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in workload.batches.items())
    in_flight = ", ".join(f"{count} {what}" for what, count in workload.transfers_in_flight.items())
    if in_flight:
        in_flight += f" ({format_dollars(workload.cents_in_flight)})"
    if workload.settles_by is not None:
        in_flight += f", to settle by {format_short_date(workload.settles_by)}"
    yield Text(f"Batches: {batches or 'none'}.")
    if workload.bank_read_at is None:
        yield Text(f"Transfers in flight: {in_flight or 'unknown'}. The bank's feed was never read.")
    else:
        age = format_age(workload.bank_read_at, now)
        yield Text(f"Transfers in flight: {in_flight or 'none'}, by the bank's feed as read {age} ago.")
    if workload.batches_in_progress:
        yield _batches_table(workload.batches_in_progress, now)
    yield Text.assemble(
        "Email: ",
        *_backlog(workload.emails, now, "queued"),
        ". Events: ",
        *_backlog(workload.events, now, "queued"),
        ". Reports: ",
        *_backlog(workload.reports, now, "pending"),
        f", {workload.reports_in_progress} in progress." if workload.reports_in_progress else ".",
    )


def _backlog(one: Backlog, now: datetime, label: str) -> Iterator[tuple[str, str]]:
    oldest = f" (oldest {format_age(one.oldest_at, now)})" if one.oldest_at is not None else ""
    yield (f"{one.pending} {label}{oldest}" if one.pending else f"none {label}", "")
    if one.failed:
        yield (f", {one.failed} failed", "red")


def _batches_table(batches: Sequence[BatchProgress], now: datetime) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for header in ("batch", "status", "age", "sent", "failed", "amount", "lease held by"):
        table.add_column(
            header, no_wrap=True, justify="right" if header in ("age", "sent", "amount", "failed") else "left"
        )
    for batch in batches:
        table.add_row(
            Text(str(batch.batch_id)),
            Text(batch.status, "cyan"),
            Text(format_age(batch.since, now)),
            Text(f"{batch.sent} of {batch.transactions}"),
            Text(str(batch.failed) if batch.failed else "", "red"),
            Text(format_dollars(batch.cents)),
            Text(strip_control_chars(batch.held_by or "none")[:8]),
        )
    return table


def _alerts_table(workload: Workload, now: datetime) -> Table | Text:
    if not workload.alerts:
        return Text("Open alerts: none.", "green")
    table = Table(
        title=f"Open alerts: {workload.alerts_open}", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD
    )
    for header in ("id", "sev", "alert", "age"):
        table.add_column(header, no_wrap=header != "alert", justify="right" if header in ("id", "age") else "left")
    for alert in workload.alerts:
        label, style = _SEVERITY_LABELS.get(alert.severity, (strip_control_chars(alert.severity), ""))
        is_acknowledged = alert.acknowledged_by is not None
        table.add_row(
            Text(str(alert.id)),
            Text(label, "dim" if is_acknowledged else style),
            _alert_text(alert),
            Text(format_age(alert.opened_at, now)),
            style="dim" if is_acknowledged else "",
        )
    return table


def _alert_text(alert: OpenAlert) -> Text:
    acknowledged = f" Acknowledged by {strip_control_chars(alert.acknowledged_by)}." if alert.acknowledged_by else ""
    return Text.assemble(
        (f"{strip_control_chars(alert.rule)} ({strip_control_chars(alert.subject)})", "bold"),
        f" {single_line(alert.detail, 240)}{acknowledged}",
    )


def _encode(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot be encoded as JSON")
