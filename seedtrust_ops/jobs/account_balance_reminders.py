"""Every third day at 01:00: emails case managers and admins about accounts below their minimum balance.

Each person gets one email that lists all of their cases, and at most one per day.
"""

import dagster as dg

from seedtrust_ops.domain.reminders.balances import find_balance_reminders
from seedtrust_ops.orchestration.email_jobs import email_job
from seedtrust_ops.orchestration.schedules import third_day_schedule

account_balance_reminders = email_job(
    "account_balance_reminders",
    find_balance_reminders,
    columns={"Cases": "rows", "Cases left out": "rows_left_out"},
    description="Email each case manager and active admin one list of their cases below the minimum balance.",
    legacy_name="cron (Flask, Crython): balance reminders",
)

defs = dg.Definitions(
    jobs=[account_balance_reminders], schedules=[third_day_schedule(account_balance_reminders, hour=1)]
)
