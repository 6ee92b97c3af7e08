"""By hand: settles one transfer whose outcome the bank does not say clearly, as `seedtrust-ops transfers settle` does.

It changes status, ledger, balance and request in one transaction. Where the worker's database login is the jobs' role,
it says which command to run instead.
"""

from collections.abc import Sequence
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from seedtrust_ops.config import get_settings
from seedtrust_ops.domain.shadow_mode.decisions import Decision
from seedtrust_ops.domain.transfers.settlement import SettleAs, Settlement, ask_bank, known_bank_id, settle, summarize
from seedtrust_ops.domain.transfers.unknown_transfers import foreign_transfers
from seedtrust_ops.formatting import MAX_ID
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, HuntingtonResource
from seedtrust_ops.orchestration.job_factory import JobConfig, single_op_job
from seedtrust_ops.orchestration.operator_transactions import open_operator_transaction, require_person
from seedtrust_ops.orchestration.shadow_runs import ShadowRun


class SettleTransferConfig(JobConfig):
    """Which transfer, as what, and by whom."""

    transaction_id: int = Field(
        default=0, ge=0, le=MAX_ID, description="The transaction's number, as on the batch screen."
    )
    as_status: Literal["completed", "failed", "returned"] = Field(
        default="failed", description="What became of it: the payee has the money, never got it, or sent it back."
    )
    reason: str = Field(default="", description="Why, such as whom you asked at Huntington. Recorded in the audit.")
    operator: str = Field(default="", description="Your email address as a user of the platform. It is not verified.")
    contradict_bank: bool = Field(
        default=False, description="Settle it although the bank says otherwise; emails all admins."
    )


def _decide(run: ShadowRun) -> Sequence[Decision]:
    config: SettleTransferConfig = run.arguments["config"]
    return [Decision(f"transaction {config.transaction_id}", f"settle as {config.as_status}")]


@single_op_job(kind="bank", shadow=_decide)
def settle_transfer(
    context: dg.OpExecutionContext,
    config: SettleTransferConfig,
    database: DatabaseResource,
    huntington: HuntingtonResource,
) -> dict[str, Any]:
    """Settle a transfer by a person's decision: status, ledger, balance and request at once.

    The bank is asked first.
    """
    operator = require_person(config.operator, config.reason)
    sessions, transaction_id = database.sessions(), config.transaction_id
    with sessions() as session:
        known = known_bank_id(session, transaction_id)
        foreign = foreign_transfers(session, transaction_id)
    answer = ask_bank(huntington.open, transaction_id, known, foreign_ids=foreign)
    decision = Settlement(
        transaction_id,
        SettleAs(config.as_status),
        config.reason,
        operator.name,
        contradict_bank=config.contradict_bank,
        unknown_grace_seconds=get_settings().transfers.unknown_grace_seconds,
    )
    command = f"seedtrust-ops transfers settle {transaction_id} --as-status {config.as_status}"
    with open_operator_transaction(sessions, operator, config.reason, command) as session:
        report = settle(session, decision, answer)
    context.log.info(summarize(report))
    return {"transaction_id": transaction_id, "before": report.before, "after": report.after}


defs = dg.Definitions(jobs=[settle_transfer])
