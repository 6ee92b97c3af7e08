"""Asks the bank, every minute, about every transfer whose truth is open, and puts right what workers left behind.

A tick with nothing open launches nothing, unless the bank's feed was last read over 15 minutes ago.
"""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import dagster as dg
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES

from seedtrust_ops.config import get_settings
from seedtrust_ops.domain.db_transaction import Sessions
from seedtrust_ops.domain.shadow_mode.decisions import Decision
from seedtrust_ops.domain.shadow_mode.transfer_dry_runs import healing, why_heal
from seedtrust_ops.domain.transfers.auto_heal import HealReport, heal, what_needs_healing
from seedtrust_ops.job_policies import job_policy
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, HuntingtonResource
from seedtrust_ops.orchestration.job_factory import automation_status, owners_and_tags, single_op_job
from seedtrust_ops.orchestration.metadata import heal_metadata
from seedtrust_ops.orchestration.shadow_runs import in_shadow, run_in_shadow
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures

NAME = "auto_heal_huntington_batches"
SEVERITY = job_policy(NAME).severity
TAKEN_FOR_DEAD_AFTER = timedelta(minutes=3)
"""A healing usually takes seconds. One that takes longer, or whose worker died, must not keep others waiting."""


@dg.op(name=NAME, retry_policy=RETRIES, tags={"kind": "bank"})
def auto_heal_huntington_batches_op(
    context: dg.OpExecutionContext, database: DatabaseResource, huntington: HuntingtonResource
) -> dict[str, Any]:
    """Bring what SeedTrust believes of its transfers to what the bank says of them. Moves no money."""
    if in_shadow(NAME):
        return run_in_shadow(context, NAME, database, partial(_heal_in_shadow, huntington))
    with user_facing_failures():
        huntington.settings  # noqa: B018  a missing variable must stop the job before it touches anything
        report = heal(
            database.sessions(),
            huntington.open,
            unknown_grace_seconds=get_settings().transfers.unknown_grace_seconds,
        )
    context.log.info(in_words(report))
    context.add_output_metadata(heal_metadata(report))
    return {
        "asked": report.findings.asked,
        "changed": len(report.findings.changes) + len(report.feed.changes),
        "requeue": report.findings.put_back,
        "queued_again": sorted({*report.abandoned, *report.findings.requeued}),
        "finished": {str(batch_id): status for batch_id, status in report.finished.items()},
    }


auto_heal_huntington_batches = single_op_job(
    auto_heal_huntington_batches_op,
    SEVERITY,
    legacy_name="Huey auto_heal_huntington_batches_periodic",
    longest_seconds=900,
)


@dg.schedule(
    name="auto_heal_huntington_batches_schedule",
    job=auto_heal_huntington_batches,
    cron_schedule="* * * * *",
    execution_timezone=get_settings().location.timezone,
    default_status=automation_status()[0],
    description="Every minute, where a transfer waits for the bank's word or its feed was not read for 15 minutes.",
    **owners_and_tags(NAME),
)
def auto_heal_huntington_batches_schedule(
    context: dg.ScheduleEvaluationContext, database: DatabaseResource
) -> dg.RunRequest | dg.SkipReason:
    """Every minute, where something is open or the bank's feed has not been read for 15 minutes."""
    with user_facing_failures():
        reason = _why_heal(database)
    under_way = context.instance.get_run_records(
        dg.RunsFilter(
            job_name=NAME, statuses=IN_PROGRESS_RUN_STATUSES, created_after=datetime.now(UTC) - TAKEN_FOR_DEAD_AFTER
        ),
        limit=1,
    )
    if under_way:
        return dg.SkipReason(f"Run {under_way[0].dagster_run.run_id} is healing.")
    if reason is None:
        return dg.SkipReason("No transfer waits for the bank's word, and the bank's feed was read lately.")
    return dg.RunRequest(tags={"seedtrust/reason": reason})


def _heal_in_shadow(huntington: HuntingtonResource, sessions: Sessions, job: str) -> list[Decision]:
    grace = get_settings().transfers.unknown_grace_seconds
    return healing(sessions, job, open_bank=huntington.open, unknown_grace_seconds=grace)


def _why_heal(database: DatabaseResource) -> str | None:
    if in_shadow(NAME):
        return why_heal(database.sessions(), NAME, get_settings().transfers.unknown_grace_seconds)
    with database.sessions()() as session:
        return what_needs_healing(session)


def in_words(report: HealReport) -> str:
    """Return what a healing came to, as one sentence."""
    changed = len(report.findings.changes) + len(report.feed.changes)
    queued = sorted({*report.abandoned, *report.findings.requeued})
    return (
        f"The bank was asked about {report.findings.asked} transfers and its feed had {report.feed.transfers}: "
        f"{changed} changed, {len(report.findings.put_back)} were never sent and are pending again, "
        f"{len(queued)} batches are queued again, {len(report.finished)} are finished."
    )
