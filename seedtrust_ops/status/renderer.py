"""Prints how things stand: for people on one screen of 80 columns or more, or as one JSON object."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seedtrust_ops.formatting import single_line, strip_control_chars
from seedtrust_ops.status.health import Health, Level
from seedtrust_ops.status.models import (
    AlertStanding,
    BatchStanding,
    DagsterStanding,
    JobStanding,
    QueueStanding,
    StatusReport,
    Waiting,
    WorkStanding,
)

WIDE = 118
HEARTBEAT_LATE_SECONDS = 75
"""A daemon that lives beats every 30 s, its scheduler every 60 s."""
_SEVERITIES = {
    "CRITICAL": ("CRIT", "bold red"),
    "HIGH": ("HIGH", "red"),
    "MEDIUM": ("MED", "yellow"),
    "LOW": ("LOW", ""),
}
_RUNS = {
    "SUCCESS": ("ok", "green"),
    "FAILURE": ("failed", "bold red"),
    "CANCELED": ("cancelled", "yellow"),
    "CANCELING": ("stopping", "yellow"),
    "QUEUED": ("queued", "cyan"),
    "NOT_STARTED": ("queued", "cyan"),
    "STARTING": ("starting", "cyan"),
    "STARTED": ("running", "cyan"),
}
_LEVELS = {Level.WELL: ("well", "green"), Level.DEGRADED: ("degraded", "yellow"), Level.DOWN: ("down", "bold red")}


def as_json(standing: StatusReport, health: Health) -> str:
    """Return everything as one JSON object; times are ISO 8601 in UTC, money is cents."""
    judged = {"level": health.level.name.lower(), "reasons": [reason.sentence for reason in health.reasons]}
    return json.dumps({"health": judged, **asdict(standing)}, default=_plain, indent=2)


def health_as_json(standing: StatusReport, health: Health) -> str:
    """Return what `health` found as one JSON object."""
    reasons = [{"level": reason.level.name.lower(), "sentence": reason.sentence} for reason in health.reasons]
    told = {"level": health.level.name.lower(), "exit_code": health.level.value, "at": standing.at, "reasons": reasons}
    return json.dumps(told, default=_plain, indent=2)


def print_health(console: Console, health: Health) -> None:
    """Print how things stand in one word, and why, a line a reason."""
    word, style = _LEVELS[health.level]
    console.print(Text.assemble("SeedTrust Ops is ", (word, style), "."))
    for reason in health.reasons:
        console.print(Text(f"- {strip_control_chars(reason.sentence)}", _LEVELS[reason.level][1]), soft_wrap=True)


def print_standing(console: Console, standing: StatusReport, health: Health) -> None:
    """Print everything that an engineer on call wants to see at once."""
    word, style = _LEVELS[health.level]
    console.print(Text.assemble(f"{standing.at:%Y-%m-%d %H:%M:%S} UTC: SeedTrust Ops is ", (word, style), "."))
    for trouble in standing.troubles:
        console.print(Text(strip_control_chars(trouble), "bold red"))
    if standing.work is not None and standing.work.halted is not None:
        console.print(Text(strip_control_chars(standing.work.halted), "bold red"))
    if standing.dagster is not None:
        console.print(_daemon(standing.dagster, standing.at))
        for note in _shadow(standing.dagster.jobs):
            console.print(note, soft_wrap=True)
        console.print(_jobs(standing.dagster.jobs, standing.at, wide=console.width >= WIDE))
        console.print(_queue(standing.dagster, standing.at))
    if standing.work is not None:
        for line in _work(standing.work, standing.at):
            console.print(line)
        console.print(_alerts(standing.work, standing.at))


def ago(moment: datetime, now: datetime) -> str:
    """Return how long ago something was, or is to come, as short as it can be read: 5s, 12m, 3h, 4d."""
    return in_short(abs((now - moment).total_seconds()))


def in_short(seconds: float) -> str:
    """Return a duration in its largest unit of which there are at least two: 95s, 12m, 47h, 4d."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"


def _daemon(dagster: DagsterStanding, now: datetime) -> Text:
    if not dagster.heartbeats:
        return Text("Daemon: it has never run on this database; start `seedtrust-ops worker`.", "bold red")
    late = {
        part: beat for part, beat in dagster.heartbeats.items() if (now - beat).total_seconds() > HEARTBEAT_LATE_SECONDS
    }
    newest = max(dagster.heartbeats.values())
    if not late:
        return Text(f"Daemon: its heart beats, last {ago(newest, now)} ago.")
    parts = ", ".join(f"{part.replace('_', ' ').lower()} {ago(beat, now)} ago" for part, beat in sorted(late.items()))
    return Text(f"Daemon: no heartbeat of {parts}.", "bold red")


def _shadow(jobs: Sequence[JobStanding]) -> Iterator[Text]:
    """Yield the line that says which jobs only record what they would have done, where there are any."""
    names = [job.name for job in jobs if job.in_shadow]
    if names:
        yield Text(f"In shadow, recording only what they would have done: {', '.join(names)}.", "bold magenta")


def _jobs(jobs: Sequence[JobStanding], now: datetime, *, wide: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    headers = ["job or sensor", "sev", "last run", "ago", "took", "next tick"]
    for header in headers + (["launched by"] if wide else []):
        table.add_column(header, no_wrap=True, justify="right" if header in ("ago", "took") else "left")
    for job in jobs:
        word, style = _SEVERITIES.get(job.severity or "", ("", ""))
        run, run_style = _RUNS.get(job.last_run_status or "", ((job.last_run_status or "-").lower(), ""))
        cells = [
            Text(job.name),
            Text(word, style),
            Text(run, run_style) if job.severity else Text(""),
            Text(ago(job.last_run_at, now) if job.last_run_at else ""),
            Text(in_short(job.last_run_seconds) if job.last_run_seconds is not None else ""),
            _tick(job, now),
        ]
        launched_by = job.automation if job.automation != job.name else ""
        table.add_row(*cells, *([Text(launched_by or "by hand")] if wide and job.severity else []))
    return table


def _tick(job: JobStanding, now: datetime) -> Text:
    if job.automation is None:
        return Text("by hand", "dim")
    if job.state == "STOPPED":
        return Text("off", "yellow")
    failed = " failed" if job.last_tick_status == "FAILURE" else ""
    if job.silent_at is not None and now >= job.silent_at:
        return Text(f"stopped {ago(job.last_tick_at or job.silent_at, now)} ago", "bold red")
    if job.next_tick_at is None:
        return Text("with the daemon", "dim")
    if job.automation.endswith("_sensor"):
        last = f"last {ago(job.last_tick_at, now)} ago" if job.last_tick_at else "first is due"
        return Text(last + failed, "red" if failed else "")
    if job.next_tick_at > now:
        return Text(f"in {ago(job.next_tick_at, now)}" + (", last" + failed if failed else ""), "red" if failed else "")
    return Text(f"due {ago(job.next_tick_at, now)} ago" + failed, "red" if failed else "yellow")


def _queue(dagster: DagsterStanding, now: datetime) -> Text:
    waiting = _by_job(dagster.queued, now) or "none"
    under_way = _by_job(dagster.under_way, now) or "none"
    return Text.assemble("Runs queued: ", (waiting, "cyan" if dagster.queued else ""), f". Under way: {under_way}.")


def _by_job(queue: Iterable[QueueStanding], now: datetime) -> str:
    return ", ".join(f"{strip_control_chars(one.job)} {one.runs} (oldest {ago(one.oldest_at, now)})" for one in queue)


def _work(work: WorkStanding, now: datetime) -> Iterator[Text | Table]:
    counted = ", ".join(f"{number} {status.replace('_', ' ')}" for status, number in work.batches.items())
    flight = ", ".join(f"{number} {status}" for status, number in work.transactions_in_flight.items())
    yield Text(
        f"Batches: {counted or 'none'}. In flight: {flight or 'nothing'}"
        + (f" (${work.cents_in_flight / 100:,.2f})." if flight else ".")
    )
    if work.on_their_way:
        yield _batches(work.on_their_way, now)
    yield Text.assemble(
        "Letters: ",
        *_waiting(work.letters, now, "wait"),
        ". Events: ",
        *_waiting(work.events, now, "wait"),
        ". Reports: ",
        *_waiting(work.reports, now, "pending"),
        f", {work.reports_under_way} being made." if work.reports_under_way else ".",
    )


def _waiting(one: Waiting, now: datetime, word: str) -> Iterator[tuple[str, str]]:
    oldest = f" (oldest {ago(one.oldest_at, now)})" if one.oldest_at is not None else ""
    yield (f"{one.waiting} {word}{oldest}" if one.waiting else f"none {word}", "")
    if one.failed:
        yield (f", {one.failed} failed", "red")


def _batches(batches: Sequence[BatchStanding], now: datetime) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for header in ("batch", "is", "since", "sent", "failed", "amount", "held by run"):
        table.add_column(
            header, no_wrap=True, justify="right" if header in ("since", "sent", "amount", "failed") else "left"
        )
    for batch in batches:
        table.add_row(
            Text(str(batch.batch_id)),
            Text(batch.status, "cyan"),
            Text(ago(batch.since, now)),
            Text(f"{batch.sent} of {batch.transactions}"),
            Text(str(batch.failed) if batch.failed else "", "red"),
            Text(f"${batch.cents / 100:,.2f}"),
            Text(strip_control_chars(batch.held_by or "nobody")[:8]),
        )
    return table


def _alerts(work: WorkStanding, now: datetime) -> Table | Text:
    if not work.alerts:
        return Text("Open alerts: none.", "green")
    table = Table(
        title=f"Open alerts: {work.alerts_open}", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD
    )
    for header in ("id", "sev", "what", "age"):
        table.add_column(header, no_wrap=header != "what", justify="right" if header in ("id", "age") else "left")
    for alert in work.alerts:
        word, style = _SEVERITIES.get(alert.severity, (strip_control_chars(alert.severity), ""))
        quiet = alert.acknowledged_by is not None
        table.add_row(
            Text(str(alert.id)), Text(word, "dim" if quiet else style), _alert(alert), Text(ago(alert.opened_at, now)),
            style="dim" if quiet else "",
        )  # fmt: skip
    return table


def _alert(alert: AlertStanding) -> Text:
    seen = f" {strip_control_chars(alert.acknowledged_by)} sees to it." if alert.acknowledged_by else ""
    return Text.assemble(
        (f"{strip_control_chars(alert.rule)} ({strip_control_chars(alert.subject)})", "bold"),
        f" {single_line(alert.detail, 240)}{seen}",
    )


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no JSON")
