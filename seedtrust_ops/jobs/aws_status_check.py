"""Every 5 minutes: checks S3 and CloudFront and posts their status to the internal API.

A component that fails its check is posted as `down` and opens an alert, and the run succeeds. It fails only if posting
fails.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import dagster as dg
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import open_alert, resolve_alert
from seedtrust_ops.domain.component_checks import check_page, check_storage
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.shadow_mode.job_dry_runs import dry_run_status_check
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.formatting import MAX_TEXT_CHARS, single_line
from seedtrust_ops.orchestration.dagster_resources import (
    CloudFrontResource,
    DatabaseResource,
    InternalApiResource,
    StorageResource,
)
from seedtrust_ops.orchestration.job_factory import single_op_job
from seedtrust_ops.orchestration.metadata import markdown_table
from seedtrust_ops.orchestration.schedules import interval_schedule
from seedtrust_ops.ports.component_status import ComponentStatus, Status

COMPONENT_DOWN = "component_down"


@single_op_job(
    kind="aws",
    shadow=lambda run: dry_run_status_check(run.arguments["cloudfront"].page().fetch),
    legacy_name="cron job_aws_status_check",
)
def aws_status_check(
    context: dg.OpExecutionContext,
    storage: StorageResource,
    cloudfront: CloudFrontResource,
    internal_api: InternalApiResource,
    database: DatabaseResource,
) -> dict[str, Any]:
    """Check S3 (write, read and delete an object) and CloudFront (fetch a page); post both to the internal API."""
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
    run_in_transaction(database.sessions(), partial(_update_alerts, statuses=statuses))
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


def _update_alerts(session: Session, statuses: Sequence[ComponentStatus]) -> None:
    for one in statuses:
        if one.status is Status.DOWN:
            text = f"{one.component} failed its last check: {single_line(one.detail, MAX_TEXT_CHARS)}"
            open_alert(session, COMPONENT_DOWN, one.component.value, "MEDIUM", text)
        else:
            resolve_alert(session, COMPONENT_DOWN, one.component.value)


defs = dg.Definitions(jobs=[aws_status_check], schedules=[interval_schedule(aws_status_check, minutes=5)])
