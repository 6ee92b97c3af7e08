"""`seedtrust-ops transfers`: halts and resumes all sending, releases a held batch, settles or explains a transfer.

What they do is in `domain/transfers`: `kill_switch`, `batch_lifecycle` (the release), `settlement` and `explanation`.
"""

from typing import Annotated, Literal

import typer

from seedtrust_ops.cli.operator_session import As, Reason, current_operator, open_operator_session
from seedtrust_ops.formatting import strip_control_chars

transfers = typer.Typer(
    no_args_is_help=True,
    help="Halt and resume the sending of transfers; release a held batch; settle or explain a transfer.",
)


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


@transfers.command()
def release(
    batch_id: Annotated[int, typer.Argument(help="The held batch's number, as on the batch screen.", min=1)],
    reason: Reason = "",
    as_: As = None,
) -> None:
    """Queue a held batch again, for example after a person canceled its run: what was not sent is sent."""
    from seedtrust_ops.domain.transfers.batch_lifecycle import release_batch
    from seedtrust_ops.formatting import format_dollars, pluralize

    with open_operator_session(current_operator(as_), reason) as session:
        queued = release_batch(session, batch_id)
    typer.echo(
        f"Batch {batch_id} is queued again: {pluralize(queued.transactions, 'transaction')} over "
        f"{format_dollars(queued.amount_cents)} to send."
    )


@transfers.command()
def settle(
    transaction_id: Annotated[int, typer.Argument(help="The transaction's number, as on the batch screen.", min=1)],
    as_status: Annotated[
        Literal["completed", "failed", "returned"],
        typer.Option(help="What became of it: the payee has the money, never got it, or sent it back."),
    ],
    reason: Annotated[str, typer.Option(help="Why, such as whom you asked at Huntington. Recorded in the audit.")],
    contradict_bank: Annotated[
        bool, typer.Option("--contradict-bank", help="Settle it although the bank says otherwise; emails all admins.")
    ] = False,
    as_: As = None,
) -> None:
    """Settle a transfer whose outcome the bank does not say clearly: status, ledger, balance and request at once.

    The bank is asked first. A later answer of the bank that is newer than this one takes precedence again.
    """
    from seedtrust_ops.config import get_settings
    from seedtrust_ops.database.engine import application_sessions
    from seedtrust_ops.domain.transfers import settlement
    from seedtrust_ops.domain.transfers.unknown_transfers import foreign_transfers
    from seedtrust_ops.resources.huntington_client import open_huntington_bank

    operator = current_operator(as_)
    settings = get_settings()
    with application_sessions()() as session:
        known = settlement.known_bank_id(session, transaction_id)
        foreign = foreign_transfers(session, transaction_id)
    answer = settlement.ask_bank(
        lambda: open_huntington_bank(settings.huntington), transaction_id, known, foreign_ids=foreign
    )
    decision = settlement.Settlement(
        transaction_id,
        settlement.SettleAs(as_status),
        reason,
        operator.name,
        contradict_bank=contradict_bank,
        unknown_grace_seconds=settings.transfers.unknown_grace_seconds,
    )
    with open_operator_session(operator, reason) as session:
        report = settlement.settle(session, decision, answer)
    typer.echo(strip_control_chars(settlement.summarize(report)))


@transfers.command()
def explain(
    bank_transfer_id: Annotated[str, typer.Argument(help="The bank's id of the transfer, as in the alert.")],
    reason: Annotated[str, typer.Option(help="Who ordered it and why, and whom you asked. Recorded in the audit.")],
    request: Annotated[
        int | None, typer.Option(help="The disbursement request that it paid: it is booked for that.", min=1)
    ] = None,
    as_: As = None,
) -> None:
    """Explain a transfer at the bank that no transaction explains; with --request, book it as the request's payment.

    The bank is asked first. If a booked transfer comes back later, an alert opens again, and explaining it again books
    it back.
    """
    from seedtrust_ops.config import get_settings
    from seedtrust_ops.domain.transfers import explanation
    from seedtrust_ops.resources.huntington_client import open_huntington_bank

    operator = current_operator(as_)
    settings = get_settings()
    answer = explanation.ask_bank(lambda: open_huntington_bank(settings.huntington), bank_transfer_id)
    decision = explanation.Explanation(bank_transfer_id, reason, operator.name, request)
    with open_operator_session(operator, reason) as session:
        report = explanation.explain(session, decision, answer)
    typer.echo(strip_control_chars(explanation.summarize(report)))
