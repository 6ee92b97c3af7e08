"""`seedtrust-ops alerts`: what is in trouble, who sees to it, and closing what only a person can settle.

The commands are registered in `cli`; whatever is slow to import is imported inside them.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seedtrust_ops.formatting import strip_control_chars

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from seedtrust_ops.tables import Alert

_COLOURS = {"CRITICAL": "bold red", "HIGH": "red", "MEDIUM": "yellow"}

alerts = typer.Typer(help="List open alerts, say that you see to one, close one.")

AlertNumber = Annotated[
    int, typer.Argument(metavar="ID", help="The alert's number, as `seedtrust-ops alerts` shows it.")
]
By = Annotated[str, typer.Option("--by", help="Who says so; else the name that this machine knows you by.")]


@alerts.callback(invoke_without_command=True)
def listed(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Those that are over, too: the last 200.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List the open alerts, worst first."""
    if context.invoked_subcommand is not None:
        return
    from seedtrust_ops.domain.alert_notifications.acknowledgement import open_alerts, resolved_alerts

    with _session() as session:
        found = [*open_alerts(session), *(resolved_alerts(session) if everything else [])]
        if as_json:
            typer.echo(json.dumps([_as_json(alert) for alert in found], indent=2))
            return
        _show(found)


@alerts.command()
def ack(alert: AlertNumber, by: By = "") -> None:
    """Say that you see to an alert: nothing more is told of it, neither that it got worse nor that it is over."""
    from seedtrust_ops.domain.alert_notifications.acknowledgement import acknowledge

    with _session() as session:
        row = acknowledge(session, alert, by or _myself())
        typer.echo(strip_control_chars(f"{row.acknowledged_by} sees to alert {row.id}: {row.rule}, {row.subject}."))


@alerts.command()
def resolve(alert: AlertNumber, by: By = "") -> None:
    """Close an alert that is settled and that no rule resolves by itself."""
    from seedtrust_ops.domain.alert_notifications.acknowledgement import resolve_by_hand

    with _session() as session:
        row = resolve_by_hand(session, alert, by or _myself())
        typer.echo(strip_control_chars(f"Alert {row.id} is closed: {row.rule}, {row.subject}."))


@contextmanager
def _session() -> "Iterator[Session]":
    from seedtrust_ops.database.engine import application_engine, application_sessions, plain_database_errors

    with plain_database_errors(application_engine().url), application_sessions().begin() as session:
        yield session


def _myself() -> str:
    from getpass import getuser

    return getuser()


def _as_json(alert: "Alert") -> dict[str, Any]:
    moments = ("opened_at", "resolved_at", "notified_at", "resolution_notified_at", "acknowledged_at")
    words = {name: getattr(alert, name) for name in ("id", "rule", "subject", "severity", "detail", "acknowledged_by")}
    return words | {
        name: moment.isoformat() if (moment := getattr(alert, name)) is not None else None for name in moments
    }


def _show(found: "list[Alert]") -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False)
    if not found:
        console.print("No alert is open.")
    for alert in found:
        colour = "" if alert.resolved_at is not None else _COLOURS.get(alert.severity, "")
        console.print(Text(strip_control_chars(f"{alert.id}  {alert.severity}  {alert.rule}, {alert.subject}"), colour))
        since = f"Since {alert.opened_at:%d %b %H:%M} UTC, {_state(alert)}."
        console.print(Padding(Text(strip_control_chars(since)), (0, 0, 0, 4)))
        console.print(Padding(Text(strip_control_chars(alert.detail)), (0, 0, 1, 4)))


def _state(alert: "Alert") -> str:
    if alert.resolved_at is not None:
        return f"over since {alert.resolved_at:%d %b %H:%M} UTC"
    return f"seen to by {alert.acknowledged_by}" if alert.acknowledged_at is not None else "open"
