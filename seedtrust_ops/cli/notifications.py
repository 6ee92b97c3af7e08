"""`seedtrust-ops notifications`: look at letters before anybody gets them, and send again what failed.

The commands are registered in `cli`; whatever is slow to import is imported inside them.
"""

from pathlib import Path
from typing import Annotated

import typer

notifications = typer.Typer(no_args_is_help=True, help="Look at letters, and send again what failed.")


@notifications.command()
def kinds() -> None:
    """List the kinds of letters, who gets each, and the variables that its templates need."""
    from seedtrust_ops.domain.notifications.notification_kinds import KINDS

    for kind in KINDS.values():
        typer.echo(f"{kind.name}\n  {kind.told}")
        for name, meaning in kind.variables.items():
            typer.echo(f"  {name}: {meaning}")
        for name, meaning in kind.optional.items():
            typer.echo(f"  {name} (optional): {meaning}")


@notifications.command()
def preview(
    kind: Annotated[str, typer.Argument(help="A kind of letter, or one of its variants, such as case-close-late.")],
    output: Annotated[Path | None, typer.Option(help="Where to write the HTML; else <kind>.html here.")] = None,
) -> None:
    """Write a letter with made-up content to an HTML file, and show its subject and plain text."""
    from zoneinfo import ZoneInfo

    from seedtrust_ops.config import get_settings
    from seedtrust_ops.domain.notifications.previews import preview as written
    from seedtrust_ops.domain.notifications.renderer import EmailRenderer

    letter = written(kind, EmailRenderer(ZoneInfo(get_settings().location.timezone)))
    path = output or Path(f"{kind}.html")
    path.write_text(letter.html, encoding="utf-8")
    typer.echo(f"Subject: {letter.subject}\n\n{letter.text}")
    typer.echo(f"The HTML is in {path}.")


@notifications.command()
def retry() -> None:
    """Queue every failed letter again, once what made them fail has been seen to; the next run sends them."""
    from seedtrust_ops.database.engine import application_sessions
    from seedtrust_ops.domain.outbox.email_claims import queue_again

    with application_sessions().begin() as session:
        count = queue_again(session)
    typer.echo(f"{count} letters are queued again.")
