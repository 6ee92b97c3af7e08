"""Every minute: looks up every open transfer at the bank, and reclaims the batches that workers abandoned.

A tick with nothing open launches no run, unless the bank's feed was last read more than 15 minutes ago.
"""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import dagster as dg

from seedtrust_ops.config import get_settings
from seedtrust_ops.domain.db_transaction import Sessions
from seedtrust_ops.domain.shadow_mode.decisions import Decision
from seedtrust_ops.domain.shadow_mode.transfer_dry_runs import dry_run_auto_heal, find_shadow_reason_to_heal
from seedtrust_ops.domain.transfers.auto_heal import HealReport, find_reason_to_heal, heal
from seedtrust_ops.job_policies import job_policy
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, HuntingtonResource
from seedtrust_ops.orchestration.job_factory import automation_status, owners_and_tags, single_op_job
from seedtrust_ops.orchestration.metadata import heal_metadata
from seedtrust_ops.orchestration.shadow_runs import is_in_shadow_mode, run_in_shadow_mode
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures

NAME = "auto_heal_huntington_batches"
SEVERITY = job_policy(NAME).severity
IN_PROGRESS = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
ASSUME_CRASHED_AFTER = timedelta(minutes=3)
"""A run usually takes seconds. One that takes longer, or whose worker crashed, must not block the next run."""


@dg.op(name=NAME, retry_policy=RETRIES, tags={"kind": "bank"})
def auto_heal_huntington_batches_op(
    context: dg.OpExecutionContext, database: DatabaseResource, huntington: HuntingtonResource
) -> dict[str, Any]:
    """Update SeedTrust's transfers to the bank's current statuses. Moves no money."""
    if is_in_shadow_mode(NAME):
        return run_in_shadow_mode(context, NAME, database, partial(_dry_run_heal, huntington))
    with user_facing_failures():
        huntington.settings  # noqa: B018  a missing variable must stop the job before it touches anything
        report = heal(
            database.sessions(),
            huntington.open,
            unknown_grace_seconds=get_settings().transfers.unknown_grace_seconds,
        )
    context.log.info(summarize_heal(report))
    context.add_output_metadata(heal_metadata(report))
    return {
        "looked_up": report.inquiry.looked_up,
        "changed": len(report.inquiry.changes) + len(report.feed.changes),
        "requeued_transactions": report.inquiry.requeued_transactions,
        "requeued_batches": sorted({*report.abandoned, *report.inquiry.requeued_batches}),
        "finished": {str(batch_id): status for batch_id, status in report.finished.items()},
    }


auto_heal_huntington_batches = single_op_job(
    auto_heal_huntington_batches_op,
    SEVERITY,
    legacy_name="Huey auto_heal_huntington_batches_periodic",
    max_runtime_seconds=900,
)


@dg.schedule(
    name="auto_heal_huntington_batches_schedule",
    job=auto_heal_huntington_batches,
    cron_schedule="* * * * *",
    execution_timezone=get_settings().location.timezone,
    default_status=automation_status()[0],
    description="Every minute, if a transfer is open or the bank's feed has not been read for 15 minutes.",
    **owners_and_tags(NAME),
)
def auto_heal_huntington_batches_schedule(
    context: dg.ScheduleEvaluationContext, database: DatabaseResource
) -> dg.RunRequest | dg.SkipReason:
    """Request a run if a transfer is open or the bank's feed has not been read for 15 minutes."""
    with user_facing_failures():
        reason = _find_reason_to_heal(database)
    in_progress = context.instance.get_run_records(
        dg.RunsFilter(job_name=NAME, statuses=IN_PROGRESS, created_after=datetime.now(UTC) - ASSUME_CRASHED_AFTER),
        limit=1,
    )
    if in_progress:
        return dg.SkipReason(f"Run {in_progress[0].dagster_run.run_id} is already in progress.")
    if reason is None:
        return dg.SkipReason("No transfer is awaiting bank status, and the bank's feed was read recently.")
    return dg.RunRequest(tags={"seedtrust/reason": reason})


def _dry_run_heal(huntington: HuntingtonResource, sessions: Sessions, job: str) -> list[Decision]:
    grace = get_settings().transfers.unknown_grace_seconds
    return dry_run_auto_heal(sessions, job, open_bank=huntington.open, unknown_grace_seconds=grace)


def _find_reason_to_heal(database: DatabaseResource) -> str | None:
    if is_in_shadow_mode(NAME):
        return find_shadow_reason_to_heal(database.sessions(), NAME, get_settings().transfers.unknown_grace_seconds)
    with database.sessions()() as session:
        return find_reason_to_heal(session)


def summarize_heal(report: HealReport) -> str:
    """Return the results of an auto-heal run in two sentences."""
    changed = len(report.inquiry.changes) + len(report.feed.changes)
    requeued_batches = sorted({*report.abandoned, *report.inquiry.requeued_batches})
    return (
        f"Transfers: {report.inquiry.looked_up} looked up at the bank, {report.feed.transfers} read from its feed, "
        f"{changed} changed, {len(report.inquiry.requeued_transactions)} never sent and pending again. "
        f"Batches: {len(requeued_batches)} requeued, {len(report.finished)} finished."
    )
