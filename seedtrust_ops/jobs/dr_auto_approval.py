"""Daily at 06:00: approves every pending disbursement request whose `auto_authorize_at` has passed.

A run approves whatever is due when it runs, not what was due at its tick, so a missed day is caught up.
"""

from typing import Any

import dagster as dg

from seedtrust_ops.domain.approvals.by_date import approve_due, preview_due
from seedtrust_ops.domain.approvals.writer import approve, require_all_approved
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.shadow_mode.job_dry_runs import dry_run_approvals_by_date
from seedtrust_ops.orchestration.approval_output import ApprovalConfig, approval_result, report_approvals
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, MailResource
from seedtrust_ops.orchestration.email_delivery import send_queued_emails
from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops.orchestration.schedules import daily_schedule


@single_op_job(
    kind="postgres",
    shadow=lambda run: dry_run_approvals_by_date(run.sessions, run.job),
    legacy_name="cron job_dr_approval",
)
def dr_auto_approval(
    context: dg.OpExecutionContext, config: ApprovalConfig, database: DatabaseResource, mail: MailResource
) -> dict[str, Any]:
    """Approve every pending request whose date has come; email the intended parents, representatives and case manager.

    To preview, launch it with `dry_run: true`: the run lists what it would approve and approves nothing.
    """
    if config.dry_run:
        report = run_in_transaction(database.sessions(), preview_due)
    else:
        report = approve(database.sessions(), approve_due)
    report_approvals(context, report, dry_run=config.dry_run)
    if not config.dry_run:
        send_queued_emails(context, database, mail)
        require_all_approved(report)
    return approval_result(report, dry_run=config.dry_run)


defs = dg.Definitions(jobs=[dr_auto_approval], schedules=[daily_schedule(dr_auto_approval, hour=6)])
