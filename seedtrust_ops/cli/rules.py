"""`seedtrust-ops rules`: explains which approval rules match a disbursement request.

The rules and their explanation are in `domain/approvals/`.
"""

from typing import Annotated

import typer

from seedtrust_ops.formatting import MAX_ID, strip_control_chars

rules = typer.Typer(no_args_is_help=True, help="Explain decisions of the approval rules.")


@rules.callback()
def _rules() -> None:
    """Keep `explain` a subcommand, although it is the only one."""


@rules.command()
def explain(
    request: Annotated[
        int, typer.Argument(metavar="REQUEST", help="The ID of the disbursement request.", min=1, max=MAX_ID)
    ],
) -> None:
    """Explain, rule by rule, why a disbursement request is or is not approved.

    Nothing is changed.
    """
    from zoneinfo import ZoneInfo

    from seedtrust_ops.config import get_settings
    from seedtrust_ops.database.engine import application_engine, application_sessions, translate_database_errors
    from seedtrust_ops.domain.approvals import explanation

    with translate_database_errors(application_engine().url), application_sessions()() as session:
        for line in explanation.explain(session, request, ZoneInfo(get_settings().location.timezone)):
            typer.echo(strip_control_chars(line))
