"""By hand: explains one transfer at the bank that no transaction explains, as `seedtrust-ops transfers explain` does.

With a request it books the transfer as that request's payment. Where the worker's database login is the jobs' role, it
says which command to run instead.
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from seedtrust_ops.domain.shadow_mode.decisions import Decision
from seedtrust_ops.domain.transfers.explanation import Explanation, ask_bank, explain, summarize
from seedtrust_ops.formatting import MAX_ID
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, HuntingtonResource
from seedtrust_ops.orchestration.job_factory import JobConfig, single_op_job
from seedtrust_ops.orchestration.operator_transactions import open_operator_transaction, require_person
from seedtrust_ops.orchestration.shadow_runs import ShadowRun


class ExplainTransferConfig(JobConfig):
    """Which transfer, why it exists, and by whom."""

    bank_transfer_id: str = Field(default="", description="The bank's id of the transfer, as in the alert.")
    request_id: int = Field(
        default=0,
        ge=0,
        le=MAX_ID,
        description="The disbursement request that it paid: it is booked for that. 0 books nothing.",
    )
    reason: str = Field(default="", description="Who ordered it and why, and whom you asked. Recorded in the audit.")
    operator: str = Field(default="", description="Your email address as a user of the platform. It is not verified.")


def _decide(run: ShadowRun) -> Sequence[Decision]:
    config: ExplainTransferConfig = run.arguments["config"]
    return [Decision(f"bank transfer {config.bank_transfer_id}", "explain", {"request_id": config.request_id})]


@single_op_job(kind="bank", shadow=_decide)
def explain_transfer(
    context: dg.OpExecutionContext,
    config: ExplainTransferConfig,
    database: DatabaseResource,
    huntington: HuntingtonResource,
) -> dict[str, Any]:
    """Explain a transfer that no transaction explains; with a request, book it as its payment.

    The bank is asked first.
    """
    operator = require_person(config.operator, config.reason)
    answer = ask_bank(huntington.open, config.bank_transfer_id)
    decision = Explanation(config.bank_transfer_id, config.reason, operator.name, config.request_id or None)
    command = f"seedtrust-ops transfers explain {config.bank_transfer_id}" + (
        f" --request {config.request_id}" if config.request_id else ""
    )
    with open_operator_transaction(database.sessions(), operator, config.reason, command) as session:
        report = explain(session, decision, answer)
    context.log.info(summarize(report))
    return {
        "bank_transfer_id": report.bank_transfer_id,
        "status": report.status,
        "request_id": report.request_id,
        "posted_cents": report.posted_cents,
    }


defs = dg.Definitions(jobs=[explain_transfer])
