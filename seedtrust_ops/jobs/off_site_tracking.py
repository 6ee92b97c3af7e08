"""Every 30 minutes: sets all users off site and clears the requests and payments that they are viewing.

A user who is still active is set on site again with the next click.
"""

from dataclasses import asdict
from typing import Any

import dagster as dg

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.shadow_mode.job_dry_runs import dry_run_presence_cleanup
from seedtrust_ops.domain.user_presence import clear_presence
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops.orchestration.schedules import interval_schedule


@single_op_job(
    kind="postgres",
    shadow=lambda run: dry_run_presence_cleanup(run.sessions),
    legacy_name="cron (Flask, Crython): off-site tracking",
)
def off_site_tracking(context: dg.OpExecutionContext, database: DatabaseResource) -> dict[str, Any]:
    """Set all users off site and empty the two tables of who is viewing what."""
    cleared = run_in_transaction(database.sessions(), clear_presence)
    context.log.info(
        f"Set {cleared.users} users off site. Cleared {cleared.viewed_requests} request views and "
        f"{cleared.viewed_payments} payment views."
    )
    context.add_output_metadata({name.replace("_", " ").capitalize(): count for name, count in asdict(cleared).items()})
    return asdict(cleared)


defs = dg.Definitions(jobs=[off_site_tracking], schedules=[interval_schedule(off_site_tracking, minutes=30)])
