"""Sends queued emails at the end of a run. Every job that queues emails calls it after its own work is committed.

A mail failure never fails or retries the job: the emails stay queued and the next run that sends emails picks them
up. `report_generation` and `auto_heal_huntington_batches` run every minute while emails are due, and send them also if
the rest of the run fails.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
from sqlalchemy.exc import DBAPIError

from seedtrust_ops.config import get_settings
from seedtrust_ops.database.engine import application_url, unreachable_error
from seedtrust_ops.domain.notifications.renderer import EmailRenderer
from seedtrust_ops.domain.outbox.dispatcher import DeliveryReport
from seedtrust_ops.domain.outbox.email_sink import send_due_emails
from seedtrust_ops.domain.outbox.store import count_due_emails
from seedtrust_ops.errors import ConfigurationError, SeedTrustError
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, MailResource
from seedtrust_ops.ports.object_storage import DownloadLink
from seedtrust_ops.resources.s3_storage import open_storage

MAX_SECONDS = 600.0


def configured_alert_emails() -> Sequence[str]:
    """Return the addresses of ALERT_EMAILS, the last to be emailed of something; none if it is missing or invalid."""
    try:
        return get_settings().alert_emails.emails
    except ConfigurationError:
        # The health sensor says so at every tick.
        return ()


def send_queued_emails(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    database: DatabaseResource,
    mail: MailResource,
    *,
    max_seconds: float = MAX_SECONDS,
    output_name: str | None = None,
    kinds: Sequence[str] | None = None,
) -> DeliveryReport:
    """Send the emails that are due, whichever job queued them; log the result and add it to the run's metadata.

    Call it once, last: after the commit that queued the emails and before the output is yielded.

    Args:
        context: the context of the op or asset.
        database: the database with the outbox.
        mail: the mail server; its variables are needed only if an email is due.
        max_seconds: emails not sent by then are left to the next run.
        output_name: the output that gets the metadata; None if the op has one output.
        kinds: only emails of these kinds are sent; None for all.

    Returns:
        the counts; `error` is a sentence if the mail server or the database could not be used.
    """
    report = _send(database, mail, max_seconds, kinds)
    (context.log.warning if report.error or report.failed else context.log.info)(summarize_delivery(report))
    context.add_output_metadata(_metadata(report), output_name=output_name)
    return report


@contextmanager
def sending_queued_emails(
    context: dg.OpExecutionContext,
    database: DatabaseResource,
    mail: MailResource,
    *,
    max_seconds: float = MAX_SECONDS,
    kinds: Sequence[str] | None = None,
) -> Iterator[DeliveryReport]:
    """Send the emails that are due after the block, also if it failed: they depend on nothing but the mail server.

    The arguments are those of `send_queued_emails`, and so is what it yields, once the block has ended. A run that is
    being terminated sends nothing; a later one does.
    """
    report = DeliveryReport()
    try:
        yield report
    except Exception:
        send_queued_emails(context, database, mail, max_seconds=max_seconds, kinds=kinds)
        raise
    vars(report).update(vars(send_queued_emails(context, database, mail, max_seconds=max_seconds, kinds=kinds)))


def summarize_delivery(report: DeliveryReport) -> str:
    """Return the counts in one sentence, followed by the error if there was one."""
    counted = (
        f"Emails: {report.sent} sent, {report.will_retry} will retry, {report.failed} failed, "
        f"{report.withheld} withheld from inactive users, {report.still_due} still due."
    )
    return f"{counted} {report.error}" if report.error else counted


def _send(
    database: DatabaseResource, mail: MailResource, max_seconds: float, kinds: Sequence[str] | None
) -> DeliveryReport:
    due = 0
    try:
        sessions = database.sessions()
        with sessions() as session:
            due = count_due_emails(session, kinds)
        if not due:
            return DeliveryReport()
        renderer = EmailRenderer(ZoneInfo(get_settings().location.timezone))
        with mail.open() as transport:
            return send_due_emails(
                sessions, transport, renderer, max_seconds=max_seconds, kinds=kinds, sign_link=_sign_link
            )
    except SeedTrustError as error:
        return DeliveryReport(still_due=due, error=str(error))
    except DBAPIError as error:
        return DeliveryReport(still_due=due, error=str(unreachable_error(application_url(), error)))


def _sign_link(key: str, filename: str) -> DownloadLink:
    # Opened for each link: few emails have one, and new credentials last longest.
    return open_storage(get_settings().storage.bucket).download_link(key, filename)


def _metadata(report: DeliveryReport) -> dict[str, Any]:
    figures = {
        "Emails sent": report.sent,
        "Emails to retry": report.will_retry,
        "Emails failed": report.failed,
        "Emails withheld from inactive users": report.withheld,
        "Emails still due": report.still_due,
        "Email error": report.error,
    }
    return {label: value for label, value in figures.items() if value} or {"Emails sent": 0}
