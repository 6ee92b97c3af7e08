"""Builds jobs that email people: a rule in `domain` says who gets which email, and everything else is done here.

A run enqueues the emails and records nothing else, in one transaction; then it sends what is due. In shadow mode it
records the emails that the rule would enqueue. Jobs that do more than email people use `job_factory` directly.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import partial
from typing import Any

import dagster as dg
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.outbox import Email, enqueue_emails
from seedtrust_ops.domain.shadow_mode.job_dry_runs import dry_run_emails
from seedtrust_ops.formatting import format_dollars, pluralize
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, MailResource
from seedtrust_ops.orchestration.email_delivery import send_queued_emails
from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops.orchestration.metadata import ROWS_SHOWN, markdown_table
from seedtrust_ops.orchestration.schedules import office_today, office_zone
from seedtrust_ops.orchestration.shadow_runs import ShadowRun

EmailRule = Callable[[Session, date], Sequence[Email]]
"""Returns the emails of a day in the office's time zone, and writes nothing.

The database uses the same zone in the rule's transaction: a timestamp that is cast to a date becomes the office's date.
"""


def email_job(
    name: str, rule: EmailRule, *, columns: Mapping[str, str], description: str, legacy_name: str | None = None
) -> dg.JobDefinition:
    """Return the job `name`, which emails people by a rule.

    Args:
        name: the job's name; `job_policies` has its severity, group and queue limits.
        rule: who gets which email today. An email whose dedupe key exists is not enqueued again.
        columns: what the run's page lists of each email next to the recipient's user id: a variable by column header.
        description: whom a run emails and why, in one or two sentences.
        legacy_name: the name of the job in the system that this project replaces, if there was one.
    """

    def send_emails(context: dg.OpExecutionContext, database: DatabaseResource, mail: MailResource) -> dict[str, Any]:
        today = office_today()
        emails, new = run_in_transaction(database.sessions(), partial(_enqueue, rule=rule, today=today))
        context.log.info(f"Queued {pluralize(new, 'email')} for {today}.")
        context.add_output_metadata(
            {
                "Emails for": str(today),
                "Emails queued": new,
                f"Emails (first {min(len(emails), ROWS_SHOWN)} of {len(emails)})": _email_table(emails, columns),
            }
        )
        send_queued_emails(context, database, mail)
        return {"as_of": str(today), "emails": new}

    def decide(run: ShadowRun) -> Any:
        return dry_run_emails(run.sessions, partial(_enqueue, rule=rule, today=office_today()))

    send_emails.__name__, send_emails.__doc__ = name, description
    return single_op_job(kind="postgres", shadow=decide, legacy_name=legacy_name)(send_emails)


def _enqueue(session: Session, rule: EmailRule, today: date) -> tuple[Sequence[Email], int]:
    session.execute(select(func.set_config("timezone", office_zone().key, True)))
    emails = rule(session, today)
    return emails, enqueue_emails(session, emails)


def _email_table(emails: Sequence[Email], columns: Mapping[str, str]) -> dg.MarkdownMetadataValue:
    return markdown_table(
        ["Recipient (user)", *columns],
        [
            (email.recipient_id, *(_show(name, email.variables.get(name)) for name in columns.values()))
            for email in emails[:ROWS_SHOWN]
        ],
    )


def _show(name: str, value: Any) -> Any:
    """Return a variable as the run's page shows it: a list as its length, cents as dollars."""
    if isinstance(value, list):
        return len(value)
    return format_dollars(value) if name.endswith("_cents") and isinstance(value, int) else value
