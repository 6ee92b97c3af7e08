"""Every minute: looks up open transfers at the bank, reclaims abandoned batches, and sends the emails that are due.

A tick with nothing open and no email due launches no run, unless the bank's feed was read more than 15 minutes ago.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import dagster as dg

from seedtrust_ops.config import get_settings
from seedtrust_ops.domain.db_transaction import Sessions
from seedtrust_ops.domain.shadow_mode.decisions import Decision
from seedtrust_ops.domain.shadow_mode.transfer_dry_runs import dry_run_auto_heal, find_shadow_reason_to_heal
from seedtrust_ops.domain.transfers.auto_heal import HealReport, find_reason_to_heal, heal
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, HuntingtonResource, MailResource
from seedtrust_ops.orchestration.email_delivery import configured_alert_emails, sending_queued_emails
from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops.orchestration.metadata import heal_metadata
from seedtrust_ops.orchestration.run_cancellation import was_canceled_by_person
from seedtrust_ops.orchestration.schedules import every_minute_if
from seedtrust_ops.orchestration.shadow_runs import ShadowRun

NAME = "auto_heal_huntington_batches"
MAX_SHOWN = 5
"""How many transactions a run's summary names."""
EMAIL_SECONDS = 40.0
"""A run sends emails for at most this long; the next one goes on."""


def _decide(run: ShadowRun) -> Sequence[Decision]:
    huntington: HuntingtonResource = run.arguments["huntington"]
    return dry_run_auto_heal(
        run.sessions, run.job, open_bank=huntington.open, unknown_grace_seconds=_unknown_grace_seconds()
    )


@single_op_job(kind="bank", shadow=_decide, legacy_name="Huey auto_heal_huntington_batches_periodic")
def auto_heal_huntington_batches(
    context: dg.OpExecutionContext, database: DatabaseResource, huntington: HuntingtonResource, mail: MailResource
) -> dict[str, Any]:
    """Update SeedTrust's transfers to the bank's current statuses, and send emails that are due. Moves no money."""
    with sending_queued_emails(context, database, mail, max_seconds=EMAIL_SECONDS):
        huntington.settings  # noqa: B018  a missing variable must stop the job before it touches anything
        report = heal(
            database.sessions(),
            huntington.open,
            unknown_grace_seconds=_unknown_grace_seconds(),
            was_canceled_by_person=partial(was_canceled_by_person, context.instance),
            alert_emails=configured_alert_emails(),
        )
    context.log.info(summarize_heal(report))
    context.add_output_metadata(heal_metadata(report))
    return {
        "looked_up": report.inquiry.looked_up,
        "changed": len(report.changes),
        "requeued_transactions": report.inquiry.requeued_transactions,
        "requeued_batches": sorted({*report.abandoned, *report.inquiry.requeued_batches}),
        "finished": {str(batch_id): status for batch_id, status in report.finished.items()},
    }


def _unknown_grace_seconds() -> float:
    return get_settings().transfers.unknown_grace_seconds


def _find_work(sessions: Sessions) -> str | None:
    with sessions() as session:
        return find_reason_to_heal(session)


def _find_shadow_work(sessions: Sessions) -> str | None:
    return find_shadow_reason_to_heal(sessions, NAME, _unknown_grace_seconds())


def summarize_heal(report: HealReport) -> str:
    """Return the results of an auto-heal run in two sentences."""
    requeued_batches = sorted({*report.abandoned, *report.inquiry.requeued_batches})
    return (
        f"Transfers: {report.inquiry.looked_up} looked up at the bank, {report.feed.transfers} read from its feed, "
        f"{len(report.changes)} changed, {len(report.inquiry.requeued_transactions)} never sent and pending again. "
        f"Batches: {len(requeued_batches)} requeued, {len(report.finished)} finished.{_describe_unrecorded(report)}"
    )


def _describe_unrecorded(report: HealReport) -> str:
    if not report.unrecorded:
        return ""
    shown = [f"transaction {one}: {failure.problem}" for one, failure in list(report.unrecorded.items())[:MAX_SHOWN]]
    return (
        f" Not recorded, and asked about again in the next run: {len(report.unrecorded)} ({'; '.join(shown)}"
        f"{'; and more' if len(report.unrecorded) > MAX_SHOWN else ''})."
    )


auto_heal_huntington_batches_schedule = every_minute_if(
    auto_heal_huntington_batches,
    find_work=_find_work,
    find_shadow_work=_find_shadow_work,
    no_work="No transfer is awaiting bank status, no email is due, and the bank's feed was read recently.",
    description="Every minute, if a transfer is open, an email is due, or the bank's feed has not been read for 15 "
    "minutes.",
)

defs = dg.Definitions(jobs=[auto_heal_huntington_batches], schedules=[auto_heal_huntington_batches_schedule])
