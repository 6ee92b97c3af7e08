"""Every 5 minutes: checks S3 and CloudFront and posts their status to the internal API.

A component that fails its check is posted as `down` and the run succeeds. The run fails only if posting fails.
"""

from functools import partial
from typing import Any

import dagster as dg

from seedtrust_ops.config import get_settings
from seedtrust_ops.domain.component_checks import check_page, check_storage
from seedtrust_ops.domain.shadow_mode import job_dry_runs
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.job_policies import job_policy
from seedtrust_ops.orchestration.dagster_resources import (
    CloudFrontResource,
    DatabaseResource,
    InternalApiResource,
    StorageResource,
)
from seedtrust_ops.orchestration.job_factory import automation_status, owners_and_tags, single_op_job
from seedtrust_ops.orchestration.metadata import markdown_table
from seedtrust_ops.orchestration.shadow_runs import is_in_shadow_mode, run_in_shadow_mode
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures

NAME = "aws_status_check"
SEVERITY = job_policy(NAME).severity


@dg.op(name=NAME, retry_policy=RETRIES, tags={"kind": "aws"})
def aws_status_check_op(
    context: dg.OpExecutionContext,
    storage: StorageResource,
    cloudfront: CloudFrontResource,
    internal_api: InternalApiResource,
    database: DatabaseResource,
) -> dict[str, Any]:
    """Check S3 (write, read and delete an object) and CloudFront (fetch a page); post both to the internal API."""
    if is_in_shadow_mode(NAME):
        with user_facing_failures():
            fetch = cloudfront.page().fetch
        return run_in_shadow_mode(context, NAME, database, partial(job_dry_runs.dry_run_status_check, fetch=fetch))
    with user_facing_failures():
        # A missing variable must stop the job before it posts anything.
        bucket, page, api = storage.open(), cloudfront.page(), internal_api.api()
        statuses = [
            check_storage(bucket, f"status-checks/{context.run_id}-{context.retry_number}"),
            check_page(page.fetch),
        ]
        failures: list[SeedTrustError] = []
        for status in statuses:
            try:
                api.post(status)
            except SeedTrustError as error:
                # Still post the other component's status.
                failures.append(error)
        context.add_output_metadata(
            {
                "Components": markdown_table(
                    ["Component", "Status", "Latency (ms)", "Detail"],
                    [
                        (one.component, one.status, "none" if one.latency_ms is None else one.latency_ms, one.detail)
                        for one in statuses
                    ],
                )
            }
        )
        if failures:
            raise failures[0]
    return {one.component.value: one.status.value for one in statuses}


aws_status_check = single_op_job(
    aws_status_check_op, SEVERITY, legacy_name="cron job_aws_status_check", max_runtime_seconds=240
)

aws_status_check_schedule = dg.ScheduleDefinition(
    name="aws_status_check_schedule",
    job=aws_status_check,
    cron_schedule="*/5 * * * *",
    execution_timezone=get_settings().location.timezone,
    default_status=automation_status()[0],
    description="Every 5 minutes.",
    **owners_and_tags(NAME),
)
