"""`seedtrust-ops rules`: why a disbursement request is approved by the approval rules, or is not.

The command is registered in `cli`; the words and the judgement are `domain/approvals`'.
"""

from typing import Annotated

import typer

from seedtrust_ops.formatting import strip_control_chars

rules = typer.Typer(no_args_is_help=True, help="The rules of the bulk auto-approver.")


@rules.callback()
def _rules() -> None:
    """Keep `explain` a command of its own, also while it is the only one."""


@rules.command()
def explain(
    request: Annotated[int, typer.Argument(metavar="DR", help="The number of the disbursement request.")],
) -> None:
    """Print, rule by rule, why a disbursement request is approved or not; nothing is changed."""
    from zoneinfo import ZoneInfo

    from seedtrust_ops.config import get_settings
    from seedtrust_ops.database.engine import application_engine, application_sessions, plain_database_errors
    from seedtrust_ops.domain.approvals import explanation

    with plain_database_errors(application_engine().url), application_sessions()() as session:
        for line in explanation.explain(session, request, ZoneInfo(get_settings().location.timezone)):
            typer.echo(strip_control_chars(line))
