"""`seedtrust-ops alerts`: lists, acknowledges and resolves alerts.

What an acknowledgement or a manual resolution changes is in `domain/alert_notifications/acknowledgement.py`.
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

_COLORS = {"CRITICAL": "bold red", "HIGH": "red", "MEDIUM": "yellow"}

alerts = typer.Typer(help="List, acknowledge and resolve alerts.\n\nWithout a command, it lists the open alerts.")

AlertId = Annotated[int, typer.Argument(metavar="ID", help="The alert's ID, as listed by `seedtrust-ops alerts`.")]
By = Annotated[str, typer.Option("--by", help="Your name.", show_default="your login name")]


@alerts.callback(invoke_without_command=True)
def list_alerts(
    context: typer.Context,
    show_all: Annotated[bool, typer.Option("--all", help="Also list the last 200 resolved alerts.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """List open alerts, most severe first."""
    if context.invoked_subcommand is not None:
        return
    from seedtrust_ops.domain.alert_notifications.acknowledgement import open_alerts, resolved_alerts

    with _session() as session:
        found = [*open_alerts(session), *(resolved_alerts(session) if show_all else [])]
        if as_json:
            typer.echo(json.dumps([_as_json(alert) for alert in found], indent=2))
            return
        _show(found)


@alerts.command()
def ack(alert: AlertId, by: By = "") -> None:
    """Acknowledge an alert: you are working on it.

    Nobody is notified of it again, neither when it gets worse nor when it is resolved.
    """
    from seedtrust_ops.domain.alert_notifications.acknowledgement import acknowledge

    with _session() as session:
        row = acknowledge(session, alert, by or _login_name())
        typer.echo(
            strip_control_chars(f"Alert {row.id} ({row.rule}, {row.subject}) is acknowledged by {row.acknowledged_by}.")
        )


@alerts.command()
def resolve(alert: AlertId, by: By = "") -> None:
    """Resolve an alert that no health rule resolves automatically.

    If a health rule still finds the problem, it opens the alert again.
    """
    from seedtrust_ops.domain.alert_notifications.acknowledgement import resolve_manually

    with _session() as session:
        row = resolve_manually(session, alert, by or _login_name())
        typer.echo(strip_control_chars(f"Alert {row.id} ({row.rule}, {row.subject}) is resolved."))


@contextmanager
def _session() -> "Iterator[Session]":
    from seedtrust_ops.database.engine import application_engine, application_sessions, translate_database_errors

    with translate_database_errors(application_engine().url), application_sessions().begin() as session:
        yield session


def _login_name() -> str:
    from getpass import getuser

    return getuser()


def _as_json(alert: "Alert") -> dict[str, Any]:
    times = ("opened_at", "resolved_at", "notified_at", "resolution_notified_at", "acknowledged_at")
    fields = {name: getattr(alert, name) for name in ("id", "rule", "subject", "severity", "detail", "acknowledged_by")}
    return fields | {name: value.isoformat() if (value := getattr(alert, name)) is not None else None for name in times}


def _show(found: "list[Alert]") -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False)
    if not found:
        console.print("No open alerts.")
    for alert in found:
        color = "" if alert.resolved_at is not None else _COLORS.get(alert.severity, "")
        console.print(Text(strip_control_chars(f"{alert.id}  {alert.severity}  {alert.rule}, {alert.subject}"), color))
        state = f"Opened {alert.opened_at:%b %d %H:%M} UTC, {_state(alert)}."
        console.print(Padding(Text(strip_control_chars(state)), (0, 0, 0, 4)))
        console.print(Padding(Text(strip_control_chars(alert.detail)), (0, 0, 1, 4)))


def _state(alert: "Alert") -> str:
    if alert.resolved_at is not None:
        return f"resolved {alert.resolved_at:%b %d %H:%M} UTC"
    return f"acknowledged by {alert.acknowledged_by}" if alert.acknowledged_at is not None else "not acknowledged"
