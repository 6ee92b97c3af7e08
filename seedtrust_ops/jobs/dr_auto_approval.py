"""Daily at 06:00: approves every pending disbursement request whose `auto_authorize_at` has passed.

A run approves whatever is due when it runs, not what was due at its tick, so a missed day is caught up.
"""

from typing import Any

import dagster as dg

from seedtrust_ops.domain.approvals.by_date import approve_due, preview_due
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.shadow_mode import job_dry_runs
from seedtrust_ops.job_policies import job_policy
from seedtrust_ops.orchestration.approval_output import ApprovalConfig, approval_result, report_approvals
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, MailResource
from seedtrust_ops.orchestration.email_delivery import send_queued_emails
from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops.orchestration.schedules import daily_schedule
from seedtrust_ops.orchestration.shadow_runs import is_in_shadow_mode, run_in_shadow_mode
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures

NAME = "dr_auto_approval"
SEVERITY = job_policy(NAME).severity


@dg.op(name=NAME, retry_policy=RETRIES, tags={"kind": "postgres"})
def dr_auto_approval_op(
    context: dg.OpExecutionContext, config: ApprovalConfig, database: DatabaseResource, mail: MailResource
) -> dict[str, Any]:
    """Approve every pending request whose date has come; email the intended parents, representatives and case manager.

    To preview, launch it with `dry_run: true`: the run lists what it would approve and approves nothing.
    """
    if is_in_shadow_mode(NAME) and not config.dry_run:
        return run_in_shadow_mode(context, NAME, database, job_dry_runs.dry_run_approvals_by_date)
    with user_facing_failures():
        report = run_in_transaction(database.sessions(), preview_due if config.dry_run else approve_due)
    report_approvals(context, report, dry_run=config.dry_run)
    if not config.dry_run:
        send_queued_emails(context, database, mail)
    return approval_result(report, dry_run=config.dry_run)


dr_auto_approval = single_op_job(dr_auto_approval_op, SEVERITY, legacy_name="cron job_dr_approval")
dr_auto_approval_schedule = daily_schedule(dr_auto_approval, hour=6)
