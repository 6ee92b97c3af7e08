"""Every third day at 01:00: emails case managers and admins about accounts below their minimum balance.

Each person gets one email that lists all of their cases, and at most one per day.
"""

from functools import partial
from typing import Any

import dagster as dg

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.reminders.balances import enqueue_balance_reminders
from seedtrust_ops.domain.shadow_mode import job_dry_runs
from seedtrust_ops.formatting import pluralize
from seedtrust_ops.job_policies import job_policy
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, MailResource
from seedtrust_ops.orchestration.email_delivery import send_queued_emails
from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops.orchestration.schedules import office_today, third_day_schedule
from seedtrust_ops.orchestration.shadow_runs import is_in_shadow_mode, run_in_shadow_mode
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures

NAME = "account_balance_reminders"
SEVERITY = job_policy(NAME).severity


@dg.op(name=NAME, retry_policy=RETRIES, tags={"kind": "postgres"})
def account_balance_reminders_op(
    context: dg.OpExecutionContext, database: DatabaseResource, mail: MailResource
) -> dict[str, Any]:
    """Email each case manager and active admin one list of their cases below the minimum balance."""
    if is_in_shadow_mode(NAME):
        return run_in_shadow_mode(
            context, NAME, database, partial(job_dry_runs.dry_run_balance_reminders, today=office_today())
        )
    today = office_today()
    with user_facing_failures():
        emails = run_in_transaction(database.sessions(), partial(enqueue_balance_reminders, today=today))
    context.log.info(f"Queued {pluralize(emails, 'email')} about balances below their minimum on {today}.")
    context.add_output_metadata({"Balances as of": str(today), "Emails queued": emails})
    send_queued_emails(context, database, mail)
    return {"as_of": str(today), "emails": emails}


account_balance_reminders = single_op_job(
    account_balance_reminders_op, SEVERITY, legacy_name="cron (Flask, Crython): balance reminders"
)
account_balance_reminders_schedule = third_day_schedule(account_balance_reminders, hour=1)
