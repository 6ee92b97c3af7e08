"""`seedtrust-ops transfers`: halts and resumes the sending of transfers.

The kill switch itself is in `domain/transfers/kill_switch.py`.
"""

from typing import Annotated

import typer

from seedtrust_ops.cli.operator_session import As, Reason, current_operator, open_operator_session
from seedtrust_ops.formatting import strip_control_chars

transfers = typer.Typer(no_args_is_help=True, help="Halt and resume the sending of transfers.")


@transfers.command()
def halt(
    reason: Annotated[str, typer.Option(help="Why transfers are halted. Shown in status, alerts and the Dagster UI.")],
    as_: As = None,
) -> None:
    """Stop sending transfers immediately, in all batches.

    Auto-heal continues to query the bank about transfers that were already sent.
    """
    from seedtrust_ops.domain.transfers import kill_switch

    operator = current_operator(as_)
    with open_operator_session(operator, reason) as session:
        kill_switch.halt(session, reason, set_by=operator.name)
        halt_reason = kill_switch.get_halt_reason(session, halted_by_environment=False)
    typer.echo(strip_control_chars(halt_reason or ""))


@transfers.command()
def resume(reason: Reason = "", as_: As = None) -> None:
    """Resume sending transfers."""
    from seedtrust_ops.config import get_settings
    from seedtrust_ops.domain.transfers import kill_switch

    with open_operator_session(current_operator(as_), reason) as session:
        was_halted = kill_switch.resume(session)
        halt_reason = kill_switch.get_halt_reason(session, get_settings().transfers.halted)
    if halt_reason is not None:
        typer.echo(strip_control_chars(halt_reason))
    else:
        typer.echo("Transfers resumed." if was_halted else "Transfers were not halted. Nothing was changed.")
