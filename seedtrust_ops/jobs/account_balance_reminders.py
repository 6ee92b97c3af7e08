"""Tells case managers and admins, every third day at 01:00, which accounts are below their minimum balance.

Each gets one letter that lists all their cases, and no second one on the same day.
"""

from functools import partial
from typing import Any

import dagster as dg

from seedtrust_ops.domain.committing import commit
from seedtrust_ops.domain.reminders.balances import remind_of_balances
from seedtrust_ops.domain.shadow import office
from seedtrust_ops.job_rules import rules_of
from seedtrust_ops.jobs.conventions import RETRIES, failures_for_people, single_op_job
from seedtrust_ops.jobs.letters import deliver_queued_letters
from seedtrust_ops.jobs.scheduling import office_today, third_day_schedule
from seedtrust_ops.jobs.shadowing import in_shadow, run_in_shadow
from seedtrust_ops.resources.database import DatabaseResource
from seedtrust_ops.resources.mail import MailResource

NAME = "account_balance_reminders"
SEVERITY = rules_of(NAME).severity


@dg.op(name=NAME, retry_policy=RETRIES, tags={"kind": "postgres"})
def account_balance_reminders_op(
    context: dg.OpExecutionContext, database: DatabaseResource, mail: MailResource
) -> dict[str, Any]:
    """Write to each case manager and active admin about all their cases below the minimum balance."""
    if in_shadow(NAME):
        return run_in_shadow(context, NAME, database, partial(office.balance_reminders, today=office_today()))
    today = office_today()
    with failures_for_people():
        letters = commit(database.sessions(), partial(remind_of_balances, today=today))
    context.log.info(f"{letters} letters were written about balances below their minimum on {today}.")
    context.add_output_metadata({"balances of": str(today), "letters written": letters})
    deliver_queued_letters(context, database, mail)
    return {"as_of": str(today), "letters": letters}


account_balance_reminders = single_op_job(account_balance_reminders_op, SEVERITY, legacy_name="cron")
account_balance_reminders_schedule = third_day_schedule(account_balance_reminders, hour=1)
