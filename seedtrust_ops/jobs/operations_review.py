"""Mondays at 05:30: a review of the week that ended, with runs, failures, approvals, money moved and reports.

The asset is partitioned by week, Monday to Sunday, keyed by the Monday. The job only reads.
"""

from datetime import date, timedelta
from typing import Any

import dagster as dg

from seedtrust_ops.config import get_settings
from seedtrust_ops.domain.operations_review.weekly_figures import load_week
from seedtrust_ops.formatting import format_dollars, pluralize
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.orchestration.job_factory import job_asset, single_asset_job
from seedtrust_ops.orchestration.metadata import weekly_review_metadata
from seedtrust_ops.orchestration.partitions import materialize_each, partitions_of_run
from seedtrust_ops.orchestration.schedules import Weekday, last_weekday, office_today, weekly_schedule

NAME = "operations_review"
WEEKS = dg.WeeklyPartitionsDefinition(
    start_date="2026-01-05", timezone=get_settings().location.timezone, day_offset=Weekday.MONDAY.value, end_offset=1
)
"""Includes the current week, so that people can review it before it ends."""


def last_complete_week(day: date) -> str:
    """Return the partition key of the last week that ended before `day`: the date of its Monday."""
    return (last_weekday(day, Weekday.MONDAY) - timedelta(days=7)).isoformat()


@job_asset(
    NAME,
    name="operations_week",
    shadow=None,
    partitions_def=WEEKS,
    kinds={"postgres", "matplotlib"},
    description="One week of operations in one chart: runs and failures, approvals, money moved, reports and their "
    "waiting times.",
)
def operations_week(
    context: dg.AssetExecutionContext, database: DatabaseResource
) -> dg.MaterializeResult[dict[str, Any]]:
    """Compute each week's figures and draw its chart."""
    weeks = partitions_of_run(context, WEEKS) or [last_complete_week(office_today())]
    return materialize_each(context, weeks, lambda week: _review_week(context, database, week))


def _review_week(
    context: dg.AssetExecutionContext, database: DatabaseResource, key: str
) -> dg.MaterializeResult[dict[str, Any]]:
    with database.sessions()() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        week = load_week(session, date.fromisoformat(key), get_settings().location.timezone)
    context.log.info(
        f"Week of {key}: {pluralize(week.total('runs'), 'run')} ({week.total('failed')} failed), "
        f"{pluralize(week.total('approvals'), 'approval')}, {format_dollars(week.total('moved_cents'))} moved, "
        f"{pluralize(week.total('reports'), 'report')}."
    )
    return dg.MaterializeResult(
        value={"week": key} | {name: week.total(name) for name in ("runs", "failed", "approvals", "moved_cents")},
        metadata=weekly_review_metadata(week),
    )


operations_review = single_asset_job(
    NAME,
    operations_week,
    description="Review the week that ended: runs, failures, approvals, money moved and reports.",
)

operations_review_schedule = weekly_schedule(
    operations_review, hour=5, minute=30, on=Weekday.MONDAY, partition_key_for=last_complete_week
)

defs = dg.Definitions(assets=[operations_week], jobs=[operations_review], schedules=[operations_review_schedule])
