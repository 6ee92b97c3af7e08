"""`seedtrust-ops notifications`: lists and shows emails, lists and previews their kinds, and requeues failed emails.

Rendering is in `domain/notifications/`, the outbox in `domain/outbox/`.
"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seedtrust_ops.formatting import MAX_ID, pluralize, strip_control_chars

if TYPE_CHECKING:
    from seedtrust_ops.domain.notifications.renderer import EmailRenderer

PREVIEWS = Path(".seedtrust") / "previews"
"""Where previews are written: a folder that git ignores."""

notifications = typer.Typer(
    no_args_is_help=True, help="Show the emails that were sent, preview their kinds, and retry failed ones."
)


class Status(StrEnum):
    """The state of an email in the outbox."""

    QUEUED = "queued"
    SENT = "sent"
    FAILED = "failed"


@notifications.command(name="list")
def list_notifications(
    status: Annotated[Status | None, typer.Option(help="Only the emails of this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The most emails to list.")] = 20,
) -> None:
    """List the newest emails, queued, sent or failed. `show` prints one of them."""
    from seedtrust_ops.database.engine import application_sessions
    from seedtrust_ops.domain.outbox.inspection import list_emails

    with application_sessions()() as session:
        emails = list_emails(session, limit=limit, status=status)
    for email in emails:
        fields = (f"{email.created_at:%Y-%m-%d %H:%M} UTC", email.kind, email.recipient_email, email.subject)
        typer.echo(f"{email.id:>6}  {email.status:<6}  {'  '.join(filter(None, fields))}")
    if not emails:
        typer.echo("No emails.")


@notifications.command()
def show(
    email: Annotated[
        int,
        typer.Argument(metavar="ID", min=1, max=MAX_ID, help="The email's ID, as listed by `notifications list`."),
    ],
) -> None:
    """Print an email: its recipient, its subject and its text, rendered again from what is stored."""
    from seedtrust_ops.database.engine import application_sessions
    from seedtrust_ops.domain.outbox.inspection import read_email

    import_email_kinds()
    with application_sessions()() as session:
        found, text = read_email(session, email, _renderer())
    state = f"sent {found.sent_at:%Y-%m-%d %H:%M} UTC" if found.sent_at is not None else found.status
    attempts = f", {pluralize(found.attempts, 'failed attempt')}" if found.attempts and found.sent_at is None else ""
    typer.echo(f"To: {found.recipient_email}\nSubject: {found.subject}\nKind: {found.kind}\nStatus: {state}{attempts}")
    if found.last_error:
        typer.echo(f"Last error: {found.last_error}")
    typer.echo("\n" + "\n".join(map(strip_control_chars, text.splitlines())))


@notifications.command()
def kinds() -> None:
    """List all kinds of email, their recipients, and their variables."""
    from seedtrust_ops.domain.notifications.kind_registry import KINDS

    import_email_kinds()
    for kind in KINDS.values():
        typer.echo(f"{kind.name}\n  {kind.recipients}")
        for name, meaning in kind.variables.items():
            typer.echo(f"  {name}: {meaning}")
        for name, meaning in kind.optional.items():
            typer.echo(f"  {name} (optional): {meaning}")


@notifications.command()
def preview(
    kind: Annotated[str, typer.Argument(help="The kind of email, or a variant such as case-close-late.")],
    output: Annotated[
        Path | None, typer.Option(help="The HTML file to write.", show_default=f"{PREVIEWS}/KIND.html")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser", help="Open the file in the browser.")] = False,
) -> None:
    """Render an email with sample data.

    It writes the HTML to a file and prints the subject and the plain text. Nothing is sent.
    """
    import_email_kinds()
    email = _renderer().render_example(kind)
    path = output or PREVIEWS / f"{kind}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(email.html, encoding="utf-8")
    typer.echo(f"Subject: {email.subject}\n\n{email.text}")
    typer.echo(f"Wrote the HTML to {path}.")
    if browser:
        typer.launch(path.resolve().as_uri())


@notifications.command()
def retry() -> None:
    """Requeue the failed emails that are still of use.

    Run it after you have fixed what made them fail. The next run of a job that sends email delivers them.
    """
    from seedtrust_ops.database.engine import application_sessions
    from seedtrust_ops.domain.outbox.email_sink import requeue_failed

    with application_sessions().begin() as session:
        result = requeue_failed(session)
    typer.echo(f"Requeued {pluralize(result.requeued, 'failed email')}.")
    if result.out_of_date:
        typer.echo(f"Not requeued: {pluralize(result.out_of_date, 'email')} too old to be of use.")
    if result.inactive:
        typer.echo(f"Not requeued: {pluralize(result.inactive, 'email')} to users who are not active.")


def _renderer() -> "EmailRenderer":
    from zoneinfo import ZoneInfo

    from seedtrust_ops.config import get_settings
    from seedtrust_ops.domain.notifications.renderer import EmailRenderer

    return EmailRenderer(ZoneInfo(get_settings().location.timezone))


def import_email_kinds() -> None:
    """Import the rules that declare kinds of email beside themselves, which registers them."""
    import importlib
    import pkgutil

    from seedtrust_ops.domain import reminders

    for module in pkgutil.walk_packages(reminders.__path__, f"{reminders.__name__}."):
        importlib.import_module(module.name)
