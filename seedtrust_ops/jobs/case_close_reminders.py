"""Tells escrow specialists, every day at 06:00, which of their cases are to be closed today.

A case whose close date passed without a letter is told of late, once.
"""

from functools import partial
from typing import Any

import dagster as dg

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.reminders.case_close import remind_of_closings
from seedtrust_ops.domain.shadow_mode import job_dry_runs
from seedtrust_ops.job_policies import job_policy
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, MailResource
from seedtrust_ops.orchestration.email_delivery import deliver_queued_letters
from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops.orchestration.schedules import daily_schedule, office_today
from seedtrust_ops.orchestration.shadow_runs import in_shadow, run_in_shadow
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures

NAME = "case_close_reminders"
SEVERITY = job_policy(NAME).severity
CASES_SHOWN = 50


@dg.op(name=NAME, retry_policy=RETRIES, tags={"kind": "postgres"})
def case_close_reminders_op(
    context: dg.OpExecutionContext, database: DatabaseResource, mail: MailResource
) -> dict[str, Any]:
    """Write to the escrow specialist of each case whose close date has come and that is not closed."""
    if in_shadow(NAME):
        return run_in_shadow(context, NAME, database, partial(job_dry_runs.closings, today=office_today()))
    with user_facing_failures():
        cases = run_in_transaction(database.sessions(), partial(remind_of_closings, today=office_today()))
    shown = ", ".join(cases[:CASES_SHOWN]) or "none"
    context.log.info(f"{len(cases)} letters were written about cases that are to be closed.")
    context.add_output_metadata(
        {"letters written": len(cases), f"cases (first {min(len(cases), CASES_SHOWN)} of {len(cases)})": shown}
    )
    deliver_queued_letters(context, database, mail)
    return {"letters": len(cases)}


case_close_reminders = single_op_job(case_close_reminders_op, SEVERITY, legacy_name="cron")
case_close_reminders_schedule = daily_schedule(case_close_reminders, hour=6)
