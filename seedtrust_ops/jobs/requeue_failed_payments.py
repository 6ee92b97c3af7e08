"""By hand: puts approved requests whose payment failed into a new draft batch, which a person then checks and queues.

It queues and sends nothing, and by default it only lists what it would draft.
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.shadow_mode.decisions import Decision
from seedtrust_ops.domain.transfers.failed_payments import (
    FailedPaymentsReport,
    draft_failed_payments,
    preview_failed_payments,
)
from seedtrust_ops.formatting import format_dollars, pluralize
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.orchestration.job_factory import JobConfig, single_op_job
from seedtrust_ops.orchestration.metadata import ROWS_SHOWN, markdown_table
from seedtrust_ops.orchestration.shadow_runs import ShadowRun


class RequeueConfig(JobConfig):
    """Whether a run drafts the payments or only lists them."""

    dry_run: bool = Field(
        default=True, description="Set to false to put the payments into a new draft batch. True only lists them."
    )

    @property
    def only_previews(self) -> bool:
        """Whether a run with this config changes nothing."""
        return self.dry_run


def _decide(run: ShadowRun) -> Sequence[Decision]:
    report = run_in_transaction(run.sessions, preview_failed_payments)
    return [
        Decision(f"request {draft.payment.request_id}", "draft again", {"amount_cents": draft.payment.amount_cents})
        for draft in report.drafts
    ]


@single_op_job(kind="postgres", shadow=_decide)
def requeue_failed_payments(
    context: dg.OpExecutionContext, config: RequeueConfig, database: DatabaseResource
) -> dict[str, Any]:
    """Put approved requests whose last payment failed or was returned into a new draft batch.

    Launch it as it is for the list of payments, then with `dry_run: false`. Queue the batch on the batch screen.
    """
    work = preview_failed_payments if config.dry_run else draft_failed_payments
    report = run_in_transaction(database.sessions(), work)
    context.log.info(summarize_drafts(report, dry_run=config.dry_run))
    context.add_output_metadata(
        {
            "Batch": dg.MetadataValue.text(str(report.batch_id or "none")),
            "Amount": dg.MetadataValue.text(format_dollars(report.amount_cents)),
            f"Payments (first {min(len(report.drafts), ROWS_SHOWN)} of {len(report.drafts)})": markdown_table(
                ["Request", "Amount", "Failed transaction", "Reason", "Account of transaction"],
                [
                    (
                        one.payment.request_id,
                        format_dollars(one.payment.amount_cents),
                        one.payment.transaction_id,
                        one.payment.reason or "",
                        one.copied_transaction_id,
                    )
                    for one in report.drafts[:ROWS_SHOWN]
                ],
            ),
            f"Left out (first {min(len(report.left_out), ROWS_SHOWN)} of {len(report.left_out)})": markdown_table(
                ["Request", "Amount", "Failed transaction", "Why it is left out"],
                [
                    (one.request_id, format_dollars(one.amount_cents), one.transaction_id, why)
                    for one, why in report.left_out[:ROWS_SHOWN]
                ],
            ),
        }
    )
    return {
        "dry_run": config.dry_run,
        "batch_id": report.batch_id,
        "payments": len(report.drafts),
        "amount_cents": report.amount_cents,
        "left_out": len(report.left_out),
    }


def summarize_drafts(report: FailedPaymentsReport, *, dry_run: bool) -> str:
    """Return one or two sentences on what was drafted, or would be."""
    payments = f"{pluralize(len(report.drafts), 'failed payment')} totaling {format_dollars(report.amount_cents)}"
    left_out = f" {len(report.left_out)} left out; the run's page says why." if report.left_out else ""
    if dry_run:
        return f"Dry run: would draft {payments}. Nothing was changed.{left_out}"
    if report.batch_id is None:
        return f"There is no failed payment to draft.{left_out}"
    return f"Drafted {payments} in batch {report.batch_id}. Check it and queue it on the batch screen.{left_out}"


defs = dg.Definitions(jobs=[requeue_failed_payments])
