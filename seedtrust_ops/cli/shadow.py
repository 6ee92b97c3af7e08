"""`seedtrust-ops shadow`: what jobs in shadow would have done, beside what the legacy systems did.

The command is registered in `cli`; the comparison is `domain/shadow/comparing`'s.
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
    from seedtrust_ops.domain.shadow_mode.comparison.models import Comparison, Period

shadow = typer.Typer(no_args_is_help=True, help="Jobs in shadow beside the legacy systems (docs/cutover.md).")

_AGO = re.compile(r"(\d+)([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


class UnreadableMoment(SeedTrustError):
    """What was given for a time is none."""


@shadow.callback()
def _shadow() -> None:
    """Keep `compare` a command of its own, also while it is the only one."""


@shadow.command()
def compare(
    since: Annotated[str, typer.Option(help="From when on: a date, an ISO 8601 time, or 12h, 7d for so long ago.")],
    until: Annotated[str | None, typer.Option(help="Up to when; now where it is not given.")] = None,
    letters: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="The legacy letters: a CSV file with the columns sent_at, kind and to."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Set our decisions beside what the legacy systems did; exit 1 where there are differences."""
    from zoneinfo import ZoneInfo

    from seedtrust_ops.config import get_settings
    from seedtrust_ops.database.engine import application_engine, application_sessions, plain_database_errors
    from seedtrust_ops.domain.shadow_mode.comparison.all_jobs import compare_everything
    from seedtrust_ops.domain.shadow_mode.comparison.emails import read_letter_log
    from seedtrust_ops.domain.shadow_mode.comparison.models import Period
    from seedtrust_ops.domain.shadow_mode.decisions import now

    zone = ZoneInfo(get_settings().location.timezone)
    with plain_database_errors(application_engine().url), application_sessions()() as session:
        at = now(session)
        period = Period(moment_of(since, at, zone), at if until is None else moment_of(until, at, zone))
        sent = None if letters is None else read_letter_log(letters.read_text(encoding="utf-8-sig").splitlines())
        comparisons = compare_everything(session, period, letters=sent, zone=zone)
    differences = sum(len(one.differences) for one in comparisons)
    if as_json:
        jobs = [asdict(one) for one in comparisons]
        told = {"since": period.since.isoformat(), "until": period.until.isoformat(), "differences": differences}
        typer.echo(json.dumps({**told, "jobs": jobs}, indent=2))
    else:
        _show(period, comparisons)
    raise typer.Exit(1 if differences else 0)


def moment_of(text: str, now: datetime, zone: tzinfo) -> datetime:
    """Return the moment (UTC) that people mean by a date or time of the office, or by so long ago.

    Raises:
        UnreadableMoment: where it is none of them.
    """
    ago = _AGO.fullmatch(text.strip())
    if ago is not None:
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UnreadableMoment(
            f"'{text}' is no time. Give a date like 2026-11-24, a time like 2026-11-24T06:00, or 7d for seven days ago."
        ) from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)).astimezone(UTC)


def _show(period: "Period", comparisons: "list[Comparison]") -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from seedtrust_ops.cli.console import PlainConsole

    console = PlainConsole()
    console.print(f"From {period.since:%Y-%m-%d %H:%M} to {period.until:%Y-%m-%d %H:%M} UTC.")
    for one in comparisons:
        console.print(Text.assemble((one.job, "bold"), f": {_in_words(one)}"), soft_wrap=True)
    differences = [difference for one in comparisons for difference in one.differences]
    if not differences:
        console.print(Text("No differences.", "green"))
        return
    if not console.is_terminal:
        # A line each, so that it can be searched and counted.
        for difference in differences:
            line = (
                f"{difference.subject}: ours would {difference.ours}; legacy: {difference.theirs}; {difference.reason}"
            )
            console.print(Text(strip_control_chars(line)), soft_wrap=True)
        return
    table = Table(title=f"{len(differences)} differences", title_justify="left", box=box.SIMPLE_HEAD)
    for header in ("what", "ours would", "legacy", "reason"):
        table.add_column(header, overflow="fold")
    for difference in differences:
        cells = (difference.subject, difference.ours, difference.theirs, difference.reason)
        table.add_row(*(Text(strip_control_chars(cell)) for cell in cells))
    console.print(table)


def _in_words(one: "Comparison") -> str:
    if one.note is not None:
        return f"not compared: {one.note}."
    waiting = f", {one.waiting} too new to be judged" if one.waiting else ""
    return f"{one.agreements} agree, {len(one.differences)} differ{waiting}."
