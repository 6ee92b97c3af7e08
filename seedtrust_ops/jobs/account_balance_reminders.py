"""Tells case managers and admins, every third day at 01:00, which accounts are below their minimum balance.

Each gets one letter that lists all their cases, and no second one on the same day.
"""

from functools import partial
from typing import Any

import dagster as dg

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.reminders.balances import remind_of_balances
from seedtrust_ops.domain.shadow_mode import job_dry_runs
from seedtrust_ops.job_policies import job_policy
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, MailResource
from seedtrust_ops.orchestration.email_delivery import deliver_queued_letters
from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops.orchestration.schedules import office_today, third_day_schedule
from seedtrust_ops.orchestration.shadow_runs import in_shadow, run_in_shadow
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures

NAME = "account_balance_reminders"
SEVERITY = job_policy(NAME).severity


@dg.op(name=NAME, retry_policy=RETRIES, tags={"kind": "postgres"})
def account_balance_reminders_op(
    context: dg.OpExecutionContext, database: DatabaseResource, mail: MailResource
) -> dict[str, Any]:
    """Write to each case manager and active admin about all their cases below the minimum balance."""
    if in_shadow(NAME):
        return run_in_shadow(context, NAME, database, partial(job_dry_runs.balance_reminders, today=office_today()))
    today = office_today()
    with user_facing_failures():
        letters = run_in_transaction(database.sessions(), partial(remind_of_balances, today=today))
    context.log.info(f"{letters} letters were written about balances below their minimum on {today}.")
    context.add_output_metadata({"balances of": str(today), "letters written": letters})
    deliver_queued_letters(context, database, mail)
    return {"as_of": str(today), "letters": letters}


account_balance_reminders = single_op_job(account_balance_reminders_op, SEVERITY, legacy_name="cron")
account_balance_reminders_schedule = third_day_schedule(account_balance_reminders, hour=1)
