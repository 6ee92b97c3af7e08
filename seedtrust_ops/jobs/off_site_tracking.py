"""Every 30 minutes: sets all users off site and clears the requests and payments that they are viewing.

A user who is still active is set on site again with the next click.
"""

from dataclasses import asdict
from typing import Any

import dagster as dg

from seedtrust_ops.config import get_settings
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.shadow_mode import job_dry_runs
from seedtrust_ops.domain.user_presence import clear_presence
from seedtrust_ops.job_policies import job_policy
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.orchestration.job_factory import automation_status, owners_and_tags, single_op_job
from seedtrust_ops.orchestration.shadow_runs import is_in_shadow_mode, run_in_shadow_mode
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures

NAME = "off_site_tracking"
SEVERITY = job_policy(NAME).severity


@dg.op(name=NAME, retry_policy=RETRIES, tags={"kind": "postgres"})
def off_site_tracking_op(context: dg.OpExecutionContext, database: DatabaseResource) -> dict[str, Any]:
    """Set all users off site and empty the two tables of who is viewing what."""
    if is_in_shadow_mode(NAME):
        return run_in_shadow_mode(context, NAME, database, job_dry_runs.dry_run_presence_cleanup)
    with user_facing_failures():
        cleared = run_in_transaction(database.sessions(), clear_presence)
    context.log.info(
        f"Set {cleared.users} users off site. Cleared {cleared.viewed_requests} request views and "
        f"{cleared.viewed_payments} payment views."
    )
    context.add_output_metadata({name.replace("_", " ").capitalize(): count for name, count in asdict(cleared).items()})
    return asdict(cleared)


off_site_tracking = single_op_job(
    off_site_tracking_op, SEVERITY, legacy_name="cron (Flask, Crython): off-site tracking"
)

off_site_tracking_schedule = dg.ScheduleDefinition(
    name="off_site_tracking_schedule",
    job=off_site_tracking,
    cron_schedule="*/30 * * * *",
    execution_timezone=get_settings().location.timezone,
    default_status=automation_status()[0],
    description="Every 30 minutes.",
    **owners_and_tags(NAME),
)
