"""`seedtrust-ops shadow`: compares the decisions of jobs in shadow mode with what the legacy systems did.

The comparison itself is in `domain/shadow_mode/comparison/`.
"""

import json
import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.formatting import strip_control_chars

if TYPE_CHECKING:
    from seedtrust_ops.domain.shadow_mode.comparison.models import Comparison, ComparisonPeriod

shadow = typer.Typer(
    no_args_is_help=True, help="Compare jobs in shadow mode with the legacy systems (see docs/cutover.md)."
)

_AGE = re.compile(r"(\d+)([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


class InvalidTime(SeedTrustError):
    """A value of --since or --until is not a time."""


@shadow.callback()
def _shadow() -> None:
    """Keep `compare` a subcommand, although it is the only one."""


@shadow.command()
def compare(
    since: Annotated[
        str, typer.Option(help="Start of the period: a date, an ISO 8601 time, or an age such as 12h or 7d.")
    ],
    until: Annotated[
        str | None, typer.Option(help="End of the period, in the same formats.", show_default="now")
    ] = None,
    emails: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A CSV file with the emails that the legacy systems sent, with columns sent_at, kind and to.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Compare the decisions of jobs in shadow mode with what the legacy systems did.

    Exit codes: 0 no differences, 1 differences.
    """
    from zoneinfo import ZoneInfo

    from seedtrust_ops.config import get_settings
    from seedtrust_ops.database.engine import application_engine, application_sessions, translate_database_errors
    from seedtrust_ops.domain.shadow_mode.comparison.all_jobs import compare_all_jobs
    from seedtrust_ops.domain.shadow_mode.comparison.emails import read_email_log
    from seedtrust_ops.domain.shadow_mode.comparison.models import ComparisonPeriod
    from seedtrust_ops.domain.shadow_mode.decisions import transaction_start_time

    zone = ZoneInfo(get_settings().location.timezone)
    with translate_database_errors(application_engine().url), application_sessions()() as session:
        at = transaction_start_time(session)
        period = ComparisonPeriod(parse_time(since, at, zone), at if until is None else parse_time(until, at, zone))
        sent = None if emails is None else read_email_log(emails.read_text(encoding="utf-8-sig").splitlines())
        comparisons = compare_all_jobs(session, period, emails=sent, zone=zone)
    differences = sum(len(one.differences) for one in comparisons)
    if as_json:
        jobs = [asdict(one) for one in comparisons]
        summary = {"since": period.since.isoformat(), "until": period.until.isoformat(), "differences": differences}
        typer.echo(json.dumps({**summary, "jobs": jobs}, indent=2))
    else:
        _show(period, comparisons)
    raise typer.Exit(1 if differences else 0)


def parse_time(text: str, now: datetime, zone: tzinfo) -> datetime:
    """Return the time (UTC) for a date or time in the office's time zone, or for an age such as 7d.

    Raises:
        InvalidTime: if the text is none of these.
    """
    age = _AGE.fullmatch(text.strip())
    try:
        if age is not None:
            return now - timedelta(**{_UNITS[age[2]]: int(age[1])})
        time = datetime.fromisoformat(text.strip())
        return (time if time.tzinfo is not None else time.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidTime(
            f"'{text}' is not a time. Use a date like 2026-11-24, a time like 2026-11-24T06:00, or an age like 7d."
        ) from None


def _show(period: "ComparisonPeriod", comparisons: "list[Comparison]") -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from seedtrust_ops.cli.console import PlainConsole

    console = PlainConsole()
    console.print(f"Period: {period.since:%Y-%m-%d %H:%M} to {period.until:%Y-%m-%d %H:%M} UTC.")
    for one in comparisons:
        console.print(Text.assemble((one.job, "bold"), f": {_summarize(one)}"), soft_wrap=True)
    differences = [difference for one in comparisons for difference in one.differences]
    if not differences:
        console.print(Text("No differences.", "green"))
        return
    if not console.is_terminal:
        # One line per difference, so that the output can be searched and counted.
        for difference in differences:
            line = (
                f"{difference.subject}: SeedTrust Ops would {difference.ours}; legacy: {difference.theirs}; "
                f"{difference.reason}"
            )
            console.print(Text(strip_control_chars(line)), soft_wrap=True)
        return
    table = Table(title=f"Differences: {len(differences)}", title_justify="left", box=box.SIMPLE_HEAD)
    for header in ("subject", "SeedTrust Ops would", "legacy", "reason"):
        table.add_column(header, overflow="fold")
    for difference in differences:
        cells = (difference.subject, difference.ours, difference.theirs, difference.reason)
        table.add_row(*(Text(strip_control_chars(cell)) for cell in cells))
    console.print(table)


def _summarize(one: "Comparison") -> str:
    if one.note is not None:
        return f"not compared: {one.note}."
    pending = f", too recent to compare: {one.pending}" if one.pending else ""
    return f"agreements: {one.agreements}, differences: {len(one.differences)}{pending}."
