"""Daily at 06:00: emails escrow specialists about their cases whose close date is today.

If a close date passed without a reminder, the specialist gets one late reminder.
"""

import dagster as dg

from seedtrust_ops.domain.reminders.case_close import find_case_close_reminders
from seedtrust_ops.orchestration.email_jobs import email_job
from seedtrust_ops.orchestration.schedules import daily_schedule

case_close_reminders = email_job(
    "case_close_reminders",
    find_case_close_reminders,
    columns={
        "Case": "case_number",
        "Closes on": "close_on",
        "Late": "late",
        "Balance": "balance_cents",
        "Open requests": "open_requests",
    },
    description="Email the escrow specialist of each open case whose close date has come.",
    legacy_name="cron (Flask, Crython): case close reminders",
)

defs = dg.Definitions(jobs=[case_close_reminders], schedules=[daily_schedule(case_close_reminders, hour=6)])
