"""Shows, every Monday at 05:30, the week that has ended: runs, failures, approvals, money moved, reports.

It is an asset by the week, Monday to Sunday, named by its Monday; it only reads.
"""

from datetime import date, timedelta
from typing import Any

import dagster as dg

from seedtrust_ops.config import get_settings
from seedtrust_ops.domain.operations_review.weekly_figures import read_week
from seedtrust_ops.job_policies import job_policy
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.orchestration.job_factory import owners_and_tags, single_asset_job
from seedtrust_ops.orchestration.metadata import dollars, week_metadata
from seedtrust_ops.orchestration.schedules import Weekday, last_weekday, office_today, weekly_schedule
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures

NAME = "operations_review"
WEEKS = dg.WeeklyPartitionsDefinition(
    start_date="2026-01-05", timezone=get_settings().location.timezone, day_offset=Weekday.MONDAY.value, end_offset=1
)
"""This week's too, so that people can look at one that is not over."""


def week_before(day: date) -> str:
    """Return the partition of the last week that has ended on `day`: the date of its Monday."""
    return (last_weekday(day, Weekday.MONDAY) - timedelta(days=7)).isoformat()


@dg.asset(
    name="operations_week",
    partitions_def=WEEKS,
    group_name=job_policy(NAME).group.value,
    kinds={"postgres", "matplotlib"},
    retry_policy=RETRIES,
    description="A week of operations in one picture: runs and failures, approvals, money moved, reports and how long "
    "people waited for them.",
    **owners_and_tags(NAME),
)
def operations_week(
    context: dg.AssetExecutionContext, database: DatabaseResource
) -> dg.MaterializeResult[dict[str, Any]]:
    """Count what the week came to, and draw it."""
    with user_facing_failures(), database.sessions()() as session:
        key = context.partition_key if context.has_partition_key else week_before(office_today())
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        week = read_week(session, date.fromisoformat(key), get_settings().location.timezone)
    context.log.info(
        f"{week.total('runs')} runs, of which {week.total('failed')} failed; {week.total('approvals')} approvals; "
        f"{dollars(week.total('moved_cents'))} moved; {week.total('reports')} reports."
    )
    return dg.MaterializeResult(
        value={"week": key} | {name: week.total(name) for name in ("runs", "failed", "approvals", "moved_cents")},
        metadata=week_metadata(week),
    )


operations_review = single_asset_job(
    NAME,
    operations_week,
    legacy_name="none",
    description="Shows a week of operations at a glance: runs, failures, approvals, money moved, reports.",
)

operations_review_schedule = weekly_schedule(
    operations_review, hour=5, minute=30, on=Weekday.MONDAY, partition_of=week_before
)
