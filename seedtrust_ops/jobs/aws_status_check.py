"""Looks every five minutes whether S3 and CloudFront work, and posts what it finds to the internal API.

A check that fails is told as `down` and the run succeeds; only where telling fails does the run fail.
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
from seedtrust_ops.orchestration.shadow_runs import in_shadow, run_in_shadow
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
    """Put, read and delete a small object in the reports' bucket, fetch CloudFront's page, and post both statuses."""
    if in_shadow(NAME):
        with user_facing_failures():
            fetch = cloudfront.page().fetch
        return run_in_shadow(context, NAME, database, partial(job_dry_runs.outside, fetch=fetch))
    with user_facing_failures():
        # A missing variable must stop the job before it tells anybody anything.
        bucket, page, api = storage.open(), cloudfront.page(), internal_api.api()
        found = [
            check_storage(bucket, f"status-checks/{context.run_id}-{context.retry_number}"),
            check_page(page.fetch),
        ]
        failures: list[SeedTrustError] = []
        for status in found:
            try:
                api.post(status)
            except SeedTrustError as error:
                # The other component's status is told all the same.
                failures.append(error)
        context.add_output_metadata(
            {
                "components": markdown_table(
                    ["component", "status", "milliseconds", "what was seen"],
                    [
                        (one.component, one.status, "none" if one.latency_ms is None else one.latency_ms, one.detail)
                        for one in found
                    ],
                )
            }
        )
        if failures:
            raise failures[0]
    return {one.component.value: one.status.value for one in found}


aws_status_check = single_op_job(
    aws_status_check_op, SEVERITY, legacy_name="cron job_aws_status_check", longest_seconds=240
)

aws_status_check_schedule = dg.ScheduleDefinition(
    name="aws_status_check_schedule",
    job=aws_status_check,
    cron_schedule="*/5 * * * *",
    execution_timezone=get_settings().location.timezone,
    default_status=automation_status()[0],
    description="Every five minutes.",
    **owners_and_tags(NAME),
)
