"""`seedtrust-ops notifications`: lists and previews the kinds of email, and requeues failed emails.

Rendering is in `domain/notifications/`, the outbox in `domain/outbox/`.
"""

from pathlib import Path
from typing import Annotated

import typer

from seedtrust_ops.formatting import pluralize

notifications = typer.Typer(no_args_is_help=True, help="List and preview email notifications, and retry failed ones.")


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
    output: Annotated[Path | None, typer.Option(help="The HTML file to write.", show_default="KIND.html")] = None,
) -> None:
    """Render an email with sample data.

    It writes the HTML to a file and prints the subject and the plain text. Nothing is sent.
    """
    from zoneinfo import ZoneInfo

    from seedtrust_ops.config import get_settings
    from seedtrust_ops.domain.notifications.renderer import EmailRenderer

    import_email_kinds()
    email = EmailRenderer(ZoneInfo(get_settings().location.timezone)).render_example(kind)
    path = output or Path(f"{kind}.html")
    path.write_text(email.html, encoding="utf-8")
    typer.echo(f"Subject: {email.subject}\n\n{email.text}")
    typer.echo(f"Wrote the HTML to {path}.")


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


def import_email_kinds() -> None:
    """Import the rules that declare kinds of email beside themselves, which registers them."""
    import importlib
    import pkgutil

    from seedtrust_ops.domain import reminders

    for module in pkgutil.walk_packages(reminders.__path__, f"{reminders.__name__}."):
        importlib.import_module(module.name)
