"""Daily at 06:00: emails escrow specialists about their cases whose close date is today.

If a close date passed without a reminder, the specialist gets one late reminder.
"""

from functools import partial
from typing import Any

import dagster as dg

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.reminders.case_close import enqueue_case_close_reminders
from seedtrust_ops.domain.shadow_mode import job_dry_runs
from seedtrust_ops.formatting import pluralize
from seedtrust_ops.job_policies import job_policy
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, MailResource
from seedtrust_ops.orchestration.email_delivery import send_queued_emails
from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops.orchestration.schedules import daily_schedule, office_today
from seedtrust_ops.orchestration.shadow_runs import is_in_shadow_mode, run_in_shadow_mode
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures

NAME = "case_close_reminders"
SEVERITY = job_policy(NAME).severity
MAX_CASES_SHOWN = 50


@dg.op(name=NAME, retry_policy=RETRIES, tags={"kind": "postgres"})
def case_close_reminders_op(
    context: dg.OpExecutionContext, database: DatabaseResource, mail: MailResource
) -> dict[str, Any]:
    """Email the escrow specialist of each open case whose close date has come."""
    if is_in_shadow_mode(NAME):
        return run_in_shadow_mode(
            context, NAME, database, partial(job_dry_runs.dry_run_case_close_reminders, today=office_today())
        )
    with user_facing_failures():
        cases = run_in_transaction(database.sessions(), partial(enqueue_case_close_reminders, today=office_today()))
    shown = ", ".join(cases[:MAX_CASES_SHOWN]) or "none"
    context.log.info(f"Queued {pluralize(len(cases), 'email')} about cases to be closed.")
    context.add_output_metadata(
        {"Emails queued": len(cases), f"Cases (first {min(len(cases), MAX_CASES_SHOWN)} of {len(cases)})": shown}
    )
    send_queued_emails(context, database, mail)
    return {"emails": len(cases)}


case_close_reminders = single_op_job(
    case_close_reminders_op, SEVERITY, legacy_name="cron (Flask, Crython): case close reminders"
)
case_close_reminders_schedule = daily_schedule(case_close_reminders, hour=6)
