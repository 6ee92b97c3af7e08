"""`seedtrust-ops transfers`: halts and resumes all sending, releases a held batch, settles or explains a transfer.

What they do is in `domain/transfers`: `kill_switch`, `batch_lifecycle` (the release), `settlement` and `explanation`.
"""

from typing import Annotated, Literal

import typer

from seedtrust_ops.cli.operator_session import As, Reason, current_operator, open_operator_session
from seedtrust_ops.formatting import MAX_ID, strip_control_chars

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
    batch_id: Annotated[
        int, typer.Argument(help="The held batch's number, as on the batch screen.", min=1, max=MAX_ID)
    ],
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
    transaction_id: Annotated[
        int, typer.Argument(help="The transaction's number, as on the batch screen.", min=1, max=MAX_ID)
    ],
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
    bank_transfer_ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BANK_ID]...", help="The bank's id of each transfer, as in the alert.", show_default=False
        ),
    ] = None,
    reason: Reason = "",
    request: Annotated[
        int | None,
        typer.Option(help="The disbursement request that it paid: it is booked for that.", min=1, max=MAX_ID),
    ] = None,
    as_: As = None,
) -> None:
    """Explain transfers at the bank that no transaction explains; with --request, book one as the request's payment.

    Without an id, it lists them, one per line, the id first. The bank is asked about each before anything changes. If a
    booked transfer comes back later, an alert opens again, and explaining it again books it back.
    """
    from seedtrust_ops.config import get_settings
    from seedtrust_ops.domain.transfers import explanation
    from seedtrust_ops.resources.huntington_client import open_huntington_bank

    if not bank_transfer_ids:
        _list_unexplained()
        return
    if not reason.strip():
        raise typer.BadParameter("Say who ordered it and why, and whom you asked.", param_hint="--reason")
    if request is not None and len(bank_transfer_ids) > 1:
        raise typer.BadParameter("A request is paid by one transfer, so give one id.", param_hint="--request")
    operator = current_operator(as_)
    huntington = get_settings().huntington
    refused = 0
    for bank_transfer_id in bank_transfer_ids:
        decision = explanation.Explanation(bank_transfer_id, reason, operator.name, request)
        try:
            answer = explanation.ask_bank(lambda: open_huntington_bank(huntington), bank_transfer_id)
            with open_operator_session(operator, reason) as session:
                report = explanation.explain(session, decision, answer)
        except explanation.ExplanationRefused as error:
            refused += 1
            typer.echo(strip_control_chars(str(error)), err=True)
        else:
            typer.echo(strip_control_chars(explanation.summarize(report)))
    if refused:
        raise typer.Exit(1)


def _list_unexplained() -> None:
    from seedtrust_ops.database.engine import application_engine, application_sessions, translate_database_errors
    from seedtrust_ops.domain.transfers.unknown_transfers import read_unexplained
    from seedtrust_ops.formatting import format_dollars

    with translate_database_errors(application_engine().url), application_sessions()() as session:
        unexplained = read_unexplained(session)
    for one in unexplained:
        first_seen = f"first seen {one.first_seen_at:%Y-%m-%d %H:%M} UTC"
        what = (
            f"{format_dollars(one.amount_cents)}, {one.method}, {one.status}, reference '{one.reference}', {first_seen}"
        )
        typer.echo(strip_control_chars(f"{one.bank_transfer_id}  {what}: {one.problem}"))
    if not unexplained:
        typer.echo("Everything that the bank has reported is explained.", err=True)
