"""Deletes, every night, the Dagster runs and delivered events that nobody needs any more: nothing else prunes them.

A run stays until JobRun has its end; JobRun itself, the attempts and the ledger stay for ever.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any

import dagster as dg
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from seedtrust_ops.config import get_settings
from seedtrust_ops.config.retention import RetentionSettings
from seedtrust_ops.dagster_db.run_purge import RetentionRule, PurgeResult, purge_runs
from seedtrust_ops.database.engine import dagster_url
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.row_purge import purge_old_attachments, purge_old_events, find_ended_runs
from seedtrust_ops.domain.shadow_mode import job_dry_runs
from seedtrust_ops.job_policies import job_policy
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops.orchestration.schedules import daily_schedule
from seedtrust_ops.orchestration.shadow_runs import is_in_shadow_mode, run_in_shadow_mode
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures

NAME = "retention"
SEVERITY = job_policy(NAME).severity
FREQUENT_JOBS = ("auto_heal_huntington_batches", "report_generation", "aws_status_check", "off_site_tracking")
"""What runs every minute to every half hour, and of whose successes JobRun tells enough."""


@dg.op(name=NAME, retry_policy=RETRIES, tags={"kind": "postgres"})
def retention_op(context: dg.OpExecutionContext, database: DatabaseResource) -> dict[str, Any]:
    """Delete old runs with their events, tags and output, and old events that were told to others."""
    settings = get_settings().retention
    if is_in_shadow_mode(NAME):
        before = datetime.now(UTC) - timedelta(days=settings.events_days)
        return run_in_shadow_mode(context, NAME, database, partial(job_dry_runs.dry_run_retention, before=before))
    over_at = monotonic() + settings.max_seconds

    def is_over() -> bool:
        return monotonic() >= over_at

    def forget_output(run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            context.instance.compute_log_manager.delete_logs(prefix=[run_id])

    with user_facing_failures():
        sessions = database.sessions()
        cleared = _purge_runs(sessions, settings, forget_output, is_over)
        before = datetime.now(UTC) - timedelta(days=settings.events_days)
        events = _purge_in_batches(sessions, partial(purge_old_events, before=before), is_over)
        files = _purge_in_batches(sessions, partial(purge_old_attachments, before=before), is_over)
    rest = "" if cleared.is_complete else " Time was up: the rest goes tomorrow."
    context.log.info(
        f"{cleared.deleted} runs, {events} events and {files} files are deleted, {cleared.kept} old runs kept.{rest}"
    )
    done = {"runs": cleared.deleted, "runs_kept": cleared.kept, "events": events, "files": files}
    context.add_output_metadata({**done, "all looked at": cleared.is_complete})
    return {**done, "complete": cleared.is_complete}


def _purge_runs(
    sessions: "sessionmaker[Session]",
    settings: RetentionSettings,
    forget_output: Callable[[Sequence[str]], None],
    is_over: Callable[[], bool],
) -> PurgeResult:
    now = datetime.now(UTC)
    ages = [
        RetentionRule(now - timedelta(days=settings.frequent_days), statuses=["SUCCESS"], jobs=FREQUENT_JOBS),
        RetentionRule(now - timedelta(days=settings.other_days)),
    ]

    def ended(run_ids: Sequence[str]) -> set[str]:
        with sessions() as session:
            return find_ended_runs(session, list(run_ids))

    engine = create_engine(dagster_url().set(drivername="postgresql+psycopg"), poolclass=NullPool)
    return purge_runs(engine, ages, may_go=ended, forget_output=forget_output, is_over=is_over)


def _purge_in_batches(
    sessions: "sessionmaker[Session]", delete_some: Callable[[Session], int], is_over: Callable[[], bool]
) -> int:
    """Delete until there is no more or time is up, a transaction at a time; return how many went."""
    total = 0
    while not is_over() and (gone := run_in_transaction(sessions, delete_some)):
        total += gone
    return total


retention = single_op_job(retention_op, SEVERITY, legacy_name="none", max_runtime_seconds=3600)

retention_schedule = daily_schedule(retention, hour=3, minute=30)
