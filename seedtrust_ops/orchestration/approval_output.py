"""Shared by the two approval jobs: the dry-run option, and how approvals appear in the log and the Dagster UI.

Which requests are approved is decided in `domain/approvals`. Amounts are shown in dollars.
"""

from typing import Any

import dagster as dg
from pydantic import Field

from seedtrust_ops.domain.approvals.writer import ApprovalReport
from seedtrust_ops.formatting import format_dollars, pluralize
from seedtrust_ops.job_policies import Group
from seedtrust_ops.orchestration.job_factory import JobConfig, owners_and_tags
from seedtrust_ops.orchestration.metadata import markdown_table

approved_requests = dg.AssetSpec(
    key="approved_requests",
    group_name=Group.APPROVALS.value,
    kinds={"postgres"},
    description="Disbursement requests approved automatically, by date (`dr_auto_approval`) or by a rule "
    "(`rule_based_approval`). One materialization per run that approved at least one request.",
    **owners_and_tags("rule_based_approval"),
)


class ApprovalConfig(JobConfig):
    """Whether a run approves requests or only shows what it would approve."""

    dry_run: bool = Field(
        default=False, description="Set to true to list the requests that would be approved without approving them."
    )

    @property
    def only_previews(self) -> bool:
        """Whether a run with this config changes nothing."""
        return self.dry_run


def approval_result(report: ApprovalReport, *, dry_run: bool) -> dict[str, Any]:
    """Return the run's result for JobRun; `amount_cents` is in cents."""
    return {
        "dry_run": dry_run,
        "approved": 0 if dry_run else report.count,
        "would_approve": report.count if dry_run else 0,
        "amount_cents": report.amount_cents,
        "emails": report.emails,
    }


def summarize_approvals(report: ApprovalReport, *, dry_run: bool) -> str:
    """Return one sentence on what was approved, or would be in a dry run."""
    requests = f"{pluralize(report.count, 'request')} totaling {format_dollars(report.amount_cents)}"
    if dry_run:
        return f"Dry run: would approve {requests}. No request was changed."
    return f"Approved {requests} and queued {pluralize(report.emails, 'email')}."


def report_approvals(context: dg.OpExecutionContext, report: ApprovalReport, *, dry_run: bool) -> None:
    """Log the outcome and add it to the run's output metadata; if requests were approved, materialize the asset."""
    summary, metadata = summarize_approvals(report, dry_run=dry_run), approval_metadata(report, dry_run=dry_run)
    context.log.info(summary)
    if report.count and not dry_run:
        context.log_event(
            dg.AssetMaterialization(asset_key=approved_requests.key, description=summary, metadata=metadata)
        )
        metadata["All approvals"] = dg.MetadataValue.asset(approved_requests.key)
    context.add_output_metadata(metadata)


def approval_metadata(report: ApprovalReport, *, dry_run: bool) -> dict[str, dg.MetadataValue[Any]]:
    """Return counts and amounts, with the first requests as a table."""
    verb = "Would be approved" if dry_run else "Approved"
    return {
        "Dry run": dg.MetadataValue.bool(dry_run),
        f"Requests {verb.lower()}": dg.MetadataValue.int(report.count),
        f"Amount {verb.lower()}": dg.MetadataValue.text(format_dollars(report.amount_cents)),
        "Emails queued": dg.MetadataValue.int(report.emails),
        f"{verb} (first {len(report.shown)} of {report.count})": markdown_table(
            ["Request", "Case", "Payee", "Category", "Amount", "Approved by"],
            [
                (
                    one.request_id,
                    one.case_number,
                    one.payee_name,
                    one.category,
                    format_dollars(one.amount_cents),
                    one.approved_by,
                )
                for one in report.shown
            ],
        ),
    }
