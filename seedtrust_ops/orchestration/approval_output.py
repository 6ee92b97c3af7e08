"""What the two jobs that approve requests do alike: the dry run, and how an approval is told to people.

What is approved is decided in `domain/approvals`; money is shown in dollars.
"""

from typing import Any

import dagster as dg
from pydantic import Field

from seedtrust_ops.domain.approvals.writer import ApprovalReport
from seedtrust_ops.job_policies import Group
from seedtrust_ops.orchestration.job_factory import JobConfig, owners_and_tags
from seedtrust_ops.orchestration.metadata import dollars, markdown_table

approved_requests = dg.AssetSpec(
    key="approved_requests",
    group_name=Group.APPROVALS.value,
    kinds={"postgres"},
    description="The disbursement requests that were approved without a person: by date (`dr_auto_approval`) or by a "
    "rule (`rule_based_approval`). Each run that approved some is one materialization.",
    **owners_and_tags("rule_based_approval"),
)


class Approving(JobConfig):
    """Whether to approve or only to show."""

    dry_run: bool = Field(default=False, description="true to approve nothing and show what would be approved.")


def result_of(report: ApprovalReport, *, dry_run: bool) -> dict[str, Any]:
    """Return what JobRun keeps of the run; amounts in cents."""
    return {
        "dry_run": dry_run,
        "approved": 0 if dry_run else report.count,
        "would_approve": report.count if dry_run else 0,
        "amount_cents": report.amount_cents,
        "letters": report.letters,
    }


def in_words(report: ApprovalReport, *, dry_run: bool) -> str:
    """Return what was approved, or would be, as one sentence."""
    requests = f"{report.count} requests over {dollars(report.amount_cents)}"
    if dry_run:
        return f"A dry run: {requests} would be approved now; nothing was changed."
    return f"{requests} were approved, and {report.letters} letters written."


def show_approvals(context: dg.OpExecutionContext, report: ApprovalReport, *, dry_run: bool) -> None:
    """Show what a run approved, or would, in its log, with its output, and where something was approved, as asset."""
    said, metadata = in_words(report, dry_run=dry_run), approval_metadata(report, dry_run=dry_run)
    context.log.info(said)
    if report.count and not dry_run:
        context.log_event(dg.AssetMaterialization(asset_key=approved_requests.key, description=said, metadata=metadata))
        metadata["all approvals"] = dg.MetadataValue.asset(approved_requests.key)
    context.add_output_metadata(metadata)


def approval_metadata(report: ApprovalReport, *, dry_run: bool) -> dict[str, dg.MetadataValue[Any]]:
    """Return what was approved, or would be, with the first requests as a table."""
    verb = "would be approved" if dry_run else "approved"
    return {
        "dry run": dg.MetadataValue.bool(dry_run),
        f"requests {verb}": dg.MetadataValue.int(report.count),
        f"amount {verb}": dg.MetadataValue.text(dollars(report.amount_cents)),
        "letters written": dg.MetadataValue.int(report.letters),
        f"{verb} (first {len(report.shown)} of {report.count})": markdown_table(
            ["request", "case", "payee", "category", "amount", "approved by"],
            [
                (
                    one.request_id,
                    one.case_number,
                    one.payee_name,
                    one.category,
                    dollars(one.amount_cents),
                    one.approved_by,
                )
                for one in report.shown
            ],
        ),
    }
