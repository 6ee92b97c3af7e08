"""Delivers letters at the end of a job's run; every job that writes letters calls it when its own work is committed.

Trouble with the mail never fails or retries the job: the letters stay queued, and whichever run delivers next
takes them. `report_generation` runs every minute where `due_letters` says that some wait.
"""

from dataclasses import asdict
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
from sqlalchemy.exc import DBAPIError

from seedtrust_ops.config import get_settings
from seedtrust_ops.database.engine import application_url, unreachable
from seedtrust_ops.domain.notifications.renderer import EmailRenderer
from seedtrust_ops.domain.outbox.email_dispatcher import DeliveryReport, send_due_emails
from seedtrust_ops.domain.outbox.email_store import due_letters
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, MailResource

LONGEST_SECONDS = 600.0


def deliver_queued_letters(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    database: DatabaseResource,
    mail: MailResource,
    *,
    longest_seconds: float = LONGEST_SECONDS,
    output_name: str | None = None,
) -> DeliveryReport:
    """Send every letter that is due, whichever job wrote it; log what came of it and add it to the run's metadata.

    Call it last, once: after the commit that wrote the letters, before the output is yielded.

    Args:
        context: the op's or asset's.
        database: where the outbox is.
        mail: the mail server; it needs its variables only where a letter is due.
        longest_seconds: what is not sent by then is left to the next run.
        output_name: the output whose metadata tells of it; None where the op has one output.

    Returns:
        what came of it; `trouble` is a sentence where mail or database could not be used.
    """
    report = _delivered(database, mail, longest_seconds)
    (context.log.warning if report.trouble or report.failed else context.log.info)(in_words(report))
    context.add_output_metadata(_metadata(report), output_name=output_name)
    return report


def in_words(report: DeliveryReport) -> str:
    """Return what a delivery came to, in sentences."""
    counted = (
        f"Letters: {report.sent} sent, {report.postponed} to be tried again, {report.failed} given up, "
        f"{report.withheld} not sent to users who are inactive, {report.still_due} still due."
    )
    return f"{counted} {report.trouble}" if report.trouble else counted


def _delivered(database: DatabaseResource, mail: MailResource, longest_seconds: float) -> DeliveryReport:
    waiting = 0
    try:
        sessions = database.sessions()
        with sessions() as session:
            waiting = due_letters(session)
        if not waiting:
            return DeliveryReport()
        stationery = EmailRenderer(ZoneInfo(get_settings().location.timezone))
        with mail.open() as post_office:
            return send_due_emails(sessions, post_office, stationery, longest_seconds=longest_seconds)
    except SeedTrustError as error:
        return DeliveryReport(still_due=waiting, trouble=str(error))
    except DBAPIError as error:
        return DeliveryReport(still_due=waiting, trouble=str(unreachable(application_url(), error)))


def _metadata(report: DeliveryReport) -> dict[str, Any]:
    told = {f"letters {name.replace('_', ' ')}": value for name, value in asdict(report).items() if value}
    return told or {"letters sent": 0}
