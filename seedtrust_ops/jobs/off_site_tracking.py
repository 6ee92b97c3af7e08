"""Sets all users off site, every 30 minutes, and forgets which requests and payments they were looking at.

Whoever is still there is on site again with the next click.
"""

from dataclasses import asdict
from typing import Any

import dagster as dg

from seedtrust_ops.config import get_settings
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.presence import clear_presence
from seedtrust_ops.domain.shadow_mode import job_dry_runs
from seedtrust_ops.job_policies import job_policy
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.orchestration.job_factory import automation_status, owners_and_tags, single_op_job
from seedtrust_ops.orchestration.shadow_runs import in_shadow, run_in_shadow
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures

NAME = "off_site_tracking"
SEVERITY = job_policy(NAME).severity


@dg.op(name=NAME, retry_policy=RETRIES, tags={"kind": "postgres"})
def off_site_tracking_op(context: dg.OpExecutionContext, database: DatabaseResource) -> dict[str, Any]:
    """Set all users off site and empty both viewing tables."""
    if in_shadow(NAME):
        return run_in_shadow(context, NAME, database, job_dry_runs.presence)
    with user_facing_failures():
        cleared = run_in_transaction(database.sessions(), clear_presence)
    context.log.info(
        f"{cleared.users} users were set off site; {cleared.viewed_requests} views of requests and "
        f"{cleared.viewed_payments} of payments were forgotten."
    )
    context.add_output_metadata({name.replace("_", " "): count for name, count in asdict(cleared).items()})
    return asdict(cleared)


off_site_tracking = single_op_job(off_site_tracking_op, SEVERITY, legacy_name="cron")

off_site_tracking_schedule = dg.ScheduleDefinition(
    name="off_site_tracking_schedule",
    job=off_site_tracking,
    cron_schedule="*/30 * * * *",
    execution_timezone=get_settings().location.timezone,
    default_status=automation_status()[0],
    description="Every 30 minutes, day and night.",
    **owners_and_tags(NAME),
)
