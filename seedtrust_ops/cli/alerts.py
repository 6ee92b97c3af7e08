"""`seedtrust-ops alerts`: lists, acknowledges and resolves alerts.

What an acknowledgement or a manual resolution changes is in `domain/alerts/store.py`.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seedtrust_ops.cli.operator_session import As, Reason, current_operator, open_operator_session
from seedtrust_ops.formatting import MAX_ID, strip_control_chars

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from seedtrust_ops.domain.alerts.channel_state import Channel
    from seedtrust_ops.tables import Alert, AlertNotification

DEFAULT_DURATION = "4h"
MAX_DURATION = timedelta(days=7)
_DURATION = re.compile(r"([0-9]{1,5})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_COLORS = {"CRITICAL": "bold red", "HIGH": "red", "MEDIUM": "yellow"}

alerts = typer.Typer(help="List, acknowledge and resolve alerts.\n\nWithout a command, it lists the open alerts.")

AlertId = Annotated[
    int, typer.Argument(metavar="ID", help="The alert's ID, as listed by `seedtrust-ops alerts`.", min=1, max=MAX_ID)
]


@alerts.callback(invoke_without_command=True)
def list_alerts(
    context: typer.Context,
    show_all: Annotated[bool, typer.Option("--all", help="Also list the last 200 resolved alerts.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """List open alerts, most severe first."""
    if context.invoked_subcommand is not None:
        return
    from seedtrust_ops.domain.alerts.channel_state import read_deliveries
    from seedtrust_ops.domain.alerts.store import open_alerts, resolved_alerts

    with _session() as session:
        found = [*open_alerts(session), *(resolved_alerts(session) if show_all else [])]
        delivered = read_deliveries(session, [alert.id for alert in found])
        if as_json:
            typer.echo(json.dumps([_as_json(alert, delivered.get(alert.id, ())) for alert in found], indent=2))
        elif found:
            _show(found, delivered)
        else:
            typer.echo("No alerts." if show_all else "No open alerts.")


@alerts.command()
def ack(
    alert: AlertId,
    duration: Annotated[
        str, typer.Option("--for", metavar="TIME", help="How long, as 30m, 4h or 2d; at most 7d.")
    ] = DEFAULT_DURATION,
    reason: Reason = "",
    as_: As = None,
) -> None:
    """Acknowledge an alert: you are working on it.

    For that long nobody is notified of it, not even that it is resolved, unless it gets worse. If it is still open
    afterwards, it is notified again.
    """
    from seedtrust_ops.domain.alerts.store import acknowledge

    operator, seconds = current_operator(as_), _parse_duration(duration)
    with open_operator_session(operator, reason) as session:
        row = acknowledge(session, alert, operator.name, seconds)
        typer.echo(
            strip_control_chars(
                f"Alert {row.id} ({row.rule}, {row.subject}) is acknowledged by {row.acknowledged_by} until "
                f"{row.acknowledged_until:%Y-%m-%d %H:%M} UTC."
            )
        )


@alerts.command()
def resolve(alert: AlertId, reason: Reason = "", as_: As = None) -> None:
    """Resolve an alert that no health rule resolves automatically.

    If a health rule still finds the problem, it opens the alert again.
    """
    from seedtrust_ops.domain.alerts.store import resolve_manually

    operator = current_operator(as_)
    with open_operator_session(operator, reason) as session:
        row = resolve_manually(session, alert, operator.name)
        typer.echo(strip_control_chars(f"Alert {row.id} ({row.rule}, {row.subject}) is resolved."))


def _parse_duration(text: str) -> timedelta:
    """Return a length of time like 30m, 4h or 2d; refuse anything else, and more than MAX_DURATION."""
    match = _DURATION.fullmatch(text.strip())
    duration = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else timedelta(0)
    if not timedelta(0) < duration <= MAX_DURATION:
        raise typer.BadParameter(f"{text!r} is not a time like 30m, 4h or 2d, at most 7d.", param_hint="--for")
    return duration


@contextmanager
def _session() -> "Iterator[Session]":
    from seedtrust_ops.database.engine import application_engine, application_sessions, translate_database_errors

    with translate_database_errors(application_engine().url), application_sessions().begin() as session:
        yield session


def _as_json(alert: "Alert", delivered: "Sequence[AlertNotification]") -> dict[str, Any]:
    times = ("opened_at", "resolved_at", "acknowledged_at", "acknowledged_until")
    names = ("id", "rule", "subject", "severity", "detail", "occurrences", "acknowledged_by")
    return {
        **{name: getattr(alert, name) for name in names},
        **{name: value.isoformat() if (value := getattr(alert, name)) is not None else None for name in times},
        "notifications": [
            {
                "channel": row.channel,
                "notification": row.notification,
                "severity": row.severity,
                "notified_at": row.notified_at.isoformat(),
            }
            for row in delivered
        ],
    }


def _show(found: "Sequence[Alert]", delivered: "Mapping[int, Sequence[AlertNotification]]") -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False)
    configured = _configured_channels()
    for alert in found:
        color = "" if alert.resolved_at is not None else _COLORS.get(alert.severity, "")
        console.print(Text(strip_control_chars(f"{alert.id}  {alert.severity}  {alert.rule}, {alert.subject}"), color))
        again = f" Occurred {alert.occurrences} times." if alert.occurrences > 1 else ""
        state = f"Opened {alert.opened_at:%b %d %H:%M} UTC, {_state(alert)}.{again}"
        console.print(Padding(Text(strip_control_chars(state)), (0, 0, 0, 4)))
        notified = _summarize_channels(alert, delivered.get(alert.id, ()), configured)
        console.print(Padding(Text(notified), (0, 0, 0, 4)))
        console.print(Padding(Text(strip_control_chars(alert.detail)), (0, 0, 1, 4)))


def _state(alert: "Alert") -> str:
    if alert.resolved_at is not None:
        return f"resolved {alert.resolved_at:%b %d %H:%M} UTC"
    if alert.acknowledged_until is None:
        return "not acknowledged"
    from seedtrust_ops.domain.alerts.channel_state import is_acknowledged

    ended = "" if is_acknowledged(alert, datetime.now(UTC)) else ", which is over or was for a lower severity"
    return f"acknowledged by {alert.acknowledged_by} until {alert.acknowledged_until:%b %d %H:%M} UTC{ended}"


def _summarize_channels(
    alert: "Alert", delivered: "Sequence[AlertNotification]", configured: "Collection[Channel]"
) -> str:
    """Return which channels have notified people of the alert, and which of those that should have not."""
    from seedtrust_ops.domain.alerts.channel_state import SKIPPED, Channel, owed_channels

    said = {(row.channel, row.notification == SKIPPED) for row in delivered}
    notified = [channel for channel in Channel if (channel, False) in said]
    skipped = [channel for channel in Channel if (channel, True) in said]
    owed = owed_channels(alert, delivered, configured, at=datetime.now(UTC))
    sentences = [f"Notified: {', '.join(notified) or 'nobody'}."]
    if owed:
        sentences.append(f"Owed: {', '.join(owed)}.")
    if skipped:
        sentences.append(f"Skipped: {', '.join(skipped)}, because the alert is about that channel.")
    return " ".join(sentences)


def _configured_channels() -> "set[Channel]":
    """Return the channels that owe people alerts: all but those that the environment leaves out on purpose."""
    from seedtrust_ops.config import get_settings
    from seedtrust_ops.domain.alerts.channel_state import Channel
    from seedtrust_ops.errors import ConfigurationError

    channels = set(Channel)
    try:
        if get_settings().posthog.key is None:
            channels.discard(Channel.POSTHOG)
        if not get_settings().alert_urls.urls:
            channels.discard(Channel.ALERT_URLS)
        if get_settings().shadow.all_jobs:
            channels.discard(Channel.INTERNAL_API)
    except ConfigurationError:
        # The health sensor's ticks name the variable; until it is corrected, the channel owes everything.
        return set(Channel)
    return channels
