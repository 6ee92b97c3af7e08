"""Daily at 03:30: purges old Dagster runs, delivered events and email attachments, which nothing else purges.

A run is kept until JobRun has its final status. JobRun rows, transfer attempts and the ledger are kept forever. In
shadow mode it purges too: runs and events accumulate then as well, and no legacy system knows them.
See docs/decisions/retention.md.
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
from seedtrust_ops.config.settings import RetentionSettings
from seedtrust_ops.dagster_db.run_purge import PurgeResult, RetentionRule, purge_runs
from seedtrust_ops.database.engine import dagster_url
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.job_runs import find_ended_runs
from seedtrust_ops.domain.outbox.store import purge_old_attachments, purge_old_events
from seedtrust_ops.formatting import pluralize
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops.orchestration.schedules import daily_schedule

FREQUENT_JOBS = ("auto_heal_huntington_batches", "report_generation", "aws_status_check", "off_site_tracking")
"""Jobs that run every 30 minutes or more often. For their successful runs, the JobRun row is enough."""


@single_op_job(kind="postgres", shadow=None)
def retention(context: dg.OpExecutionContext, database: DatabaseResource) -> dict[str, Any]:
    """Purge old runs with their events, tags and output, plus old outgoing events and attachments of failed emails."""
    settings = get_settings().retention
    deadline = monotonic() + settings.max_seconds

    def is_time_up() -> bool:
        return monotonic() >= deadline

    def delete_output(run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            context.instance.compute_log_manager.delete_logs(prefix=[run_id])

    sessions, before = database.sessions(), datetime.now(UTC) - timedelta(days=settings.events_days)
    purged = _purge_runs(sessions, settings, delete_output, is_time_up)
    events = _purge_in_batches(sessions, partial(purge_old_events, before=before), is_time_up)
    attachments = _purge_in_batches(sessions, partial(purge_old_attachments, before=before), is_time_up)
    remainder = "" if purged.is_complete else " Time limit reached: the rest will be purged in the next run."
    context.log.info(
        f"Purged {pluralize(purged.deleted, 'run')}, {pluralize(events, 'event')} and "
        f"{pluralize(attachments, 'email attachment')}. Kept {pluralize(purged.kept, 'old run')} that JobRun still "
        f"needs.{remainder}"
    )
    context.add_output_metadata(
        {
            "Runs purged": purged.deleted,
            "Old runs kept": purged.kept,
            "Events purged": events,
            "Email attachments purged": attachments,
            "Complete": purged.is_complete,
        }
    )
    return {
        "runs": purged.deleted,
        "runs_kept": purged.kept,
        "events": events,
        "attachments": attachments,
        "complete": purged.is_complete,
    }


def _purge_runs(
    sessions: "sessionmaker[Session]",
    settings: RetentionSettings,
    delete_output: Callable[[Sequence[str]], None],
    is_time_up: Callable[[], bool],
) -> PurgeResult:
    now = datetime.now(UTC)
    rules = [
        RetentionRule(now - timedelta(days=settings.frequent_days), statuses=["SUCCESS"], jobs=FREQUENT_JOBS),
        RetentionRule(now - timedelta(days=settings.other_days)),
    ]

    def select_ended(run_ids: Sequence[str]) -> set[str]:
        with sessions() as session:
            return find_ended_runs(session, list(run_ids))

    engine = create_engine(dagster_url().set(drivername="postgresql+psycopg"), poolclass=NullPool)
    return purge_runs(engine, rules, select_deletable=select_ended, delete_output=delete_output, is_time_up=is_time_up)


def _purge_in_batches(
    sessions: "sessionmaker[Session]", purge_batch: Callable[[Session], int], is_time_up: Callable[[], bool]
) -> int:
    """Purge one batch per transaction until none is left or time is up; return the number of rows."""
    total = 0
    while not is_time_up() and (purged := run_in_transaction(sessions, purge_batch)):
        total += purged
    return total


defs = dg.Definitions(jobs=[retention], schedules=[daily_schedule(retention, hour=3, minute=30)])
