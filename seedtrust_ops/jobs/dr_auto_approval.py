"""Approves, every day at 06:00, every pending disbursement request whose `auto_authorize_at` has passed.

A run approves what is due when it runs, not what was due at its tick: a day that was missed is made up for.
"""

from typing import Any

import dagster as dg

from seedtrust_ops.domain.approvals.by_date import approve_due, would_approve_due
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.shadow_mode import job_dry_runs
from seedtrust_ops.job_policies import job_policy
from seedtrust_ops.orchestration.approval_output import Approving, result_of, show_approvals
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, MailResource
from seedtrust_ops.orchestration.email_delivery import deliver_queued_letters
from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops.orchestration.schedules import daily_schedule
from seedtrust_ops.orchestration.shadow_runs import in_shadow, run_in_shadow
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures

NAME = "dr_auto_approval"
SEVERITY = job_policy(NAME).severity


@dg.op(name=NAME, retry_policy=RETRIES, tags={"kind": "postgres"})
def dr_auto_approval_op(
    context: dg.OpExecutionContext, config: Approving, database: DatabaseResource, mail: MailResource
) -> dict[str, Any]:
    """Approve every request whose date has come, and write to the case's parents, representatives and manager.

    By hand: `dry_run: true` in the launchpad shows what would be approved, and approves nothing.
    """
    if in_shadow(NAME) and not config.dry_run:
        return run_in_shadow(context, NAME, database, job_dry_runs.approvals_by_date)
    with user_facing_failures():
        report = run_in_transaction(database.sessions(), would_approve_due if config.dry_run else approve_due)
    show_approvals(context, report, dry_run=config.dry_run)
    if not config.dry_run:
        deliver_queued_letters(context, database, mail)
    return result_of(report, dry_run=config.dry_run)


dr_auto_approval = single_op_job(dr_auto_approval_op, SEVERITY, legacy_name="cron job_dr_approval")
dr_auto_approval_schedule = daily_schedule(dr_auto_approval, hour=6)
