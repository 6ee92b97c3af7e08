"""Every minute, if there is work: generates the requested reports and sends emails that are due.

Each report is a materialization of asset `reports/<kind>`. An error in one request fails only that request.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from seedtrust_ops.config import get_settings
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.outbox import count_due_emails
from seedtrust_ops.domain.reports.report_kinds import TITLES
from seedtrust_ops.domain.reports.request_limit import MAX_WAITING_REPORTS, limit_waiting_reports
from seedtrust_ops.domain.reports.request_queue import count_claimable_requests
from seedtrust_ops.domain.shadow_mode.decisions import Decision, undecided_requests
from seedtrust_ops.formatting import MAX_ID, pluralize
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, MailResource, StorageResource
from seedtrust_ops.orchestration.email_delivery import sending_queued_emails
from seedtrust_ops.orchestration.job_factory import JobConfig, owners_and_tags, single_op_job
from seedtrust_ops.orchestration.metadata import Link, asset_link, markdown_table, report_metadata
from seedtrust_ops.orchestration.schedules import every_minute_if, office_today
from seedtrust_ops.orchestration.shadow_runs import ShadowRun

if TYPE_CHECKING:
    from seedtrust_ops.domain.reports.generator import RequestFailure

NAME = "report_generation"
ALL_REQUESTS = 0
"""The default in the launchpad; a person replaces it with the id of one request."""

Outcome = tuple[int, Link | str, str, str]
"""A request's id, its kind or the link to its asset, generated, requeued or failed, and its location or why."""

report_assets = [
    dg.AssetSpec(
        key=dg.AssetKey(["reports", kind]),
        group_name="reports",
        kinds={"s3"},
        description=f"'{title}' reports that users requested. One materialization per report, by `{NAME}`.",
        **owners_and_tags(NAME),
    )
    for kind, title in TITLES.items()
]


class ReportGenerationConfig(JobConfig):
    """Which reports to generate."""

    report_id: int = Field(
        default=ALL_REQUESTS,
        ge=0,
        le=MAX_ID,
        description="Id of one report request to generate now, even if it failed before; 0 generates all pending ones.",
    )


def _decide(run: ShadowRun) -> Sequence[Decision]:
    # As slow to import as the report generator.
    from seedtrust_ops.domain.shadow_mode.report_dry_runs import dry_run_reports

    return dry_run_reports(run.sessions, run.job, zone=get_settings().location.timezone)


@single_op_job(kind="s3", shadow=_decide, legacy_name="cron job_report_generation")
def report_generation(
    context: dg.OpExecutionContext,
    config: ReportGenerationConfig,
    database: DatabaseResource,
    storage: StorageResource,
    mail: MailResource,
) -> dict[str, Any]:
    """Generate the waiting report requests for at most 50 seconds, users in turn; then send the emails that are due.

    To generate one request now, launch it with that request's id as `report_id`.
    """
    # Emails need no bucket: they are sent also if REPORTS_BUCKET is missing or S3 is down.
    with sending_queued_emails(context, database, mail) as emails:
        outcomes, refused = _generate(context, config, database, storage)
    return {
        **{name: [one[0] for one in outcomes if one[2] == name] for name in ("generated", "failed", "requeued")},
        "refused": refused,
        "emails_sent": emails.sent,
    }


def _generate(
    context: dg.OpExecutionContext, config: ReportGenerationConfig, database: DatabaseResource, storage: StorageResource
) -> tuple[list[Outcome], int]:
    """Generate the requests; return what became of each, and how many requests were refused."""
    # The libraries for spreadsheets, PDFs and charts take a second to import, and only a run needs them.
    from seedtrust_ops.domain.reports.generator import GeneratedReport, generate_report, generate_reports

    outcomes: list[Outcome] = []
    zone = get_settings().location.timezone
    sessions = database.sessions()
    refused = run_in_transaction(sessions, partial(limit_waiting_reports, today=office_today()))
    for one in refused:
        context.log.warning(
            f"User {one.user_id} had more than {MAX_WAITING_REPORTS} report requests waiting. The newest {one.count} "
            "failed, and the user is emailed."
        )
    with sessions() as session:
        waiting = count_claimable_requests(session)
    if config.report_id != ALL_REQUESTS:
        work: Iterable[GeneratedReport | RequestFailure] = [
            generate_report(sessions, storage.open(), config.report_id, zone=zone)
        ]
    else:
        work = generate_reports(sessions, storage.open(), zone=zone) if waiting else ()
    for result in work:
        request = result.request
        if isinstance(result, GeneratedReport):
            asset = asset_link(["reports", request.kind], request.kind)
            outcomes.append((request.id, asset, "generated", result.location))
            context.log_event(
                dg.AssetMaterialization(
                    asset_key=["reports", request.kind],
                    description=f"{result.built.report.title}: {result.built.report.about}",
                    metadata=report_metadata(result),
                )
            )
        else:
            outcome = "requeued" if result.will_retry else "failed"
            outcomes.append((request.id, request.kind, outcome, result.reason))
            context.log.warning(f"Report request {request.id}: {result.reason}")
    context.add_output_metadata(
        {"Requests": markdown_table(["Request", "Kind", "Outcome", "Location or reason"], outcomes)}
    )
    counts = Counter(outcome for _, _, outcome, _ in outcomes)
    context.log.info(
        f"Reports: {counts['generated']} generated, {counts['requeued']} will retry, {counts['failed']} failed."
    )
    return outcomes, sum(one.count for one in refused)


def _find_work(sessions: Sessions) -> str | None:
    with sessions() as session:
        requests, emails = count_claimable_requests(session), count_due_emails(session)
    if not requests and not emails:
        return None
    return f"waiting: {pluralize(requests, 'report request')} and {pluralize(emails, 'email')}"


def _find_shadow_work(sessions: Sessions) -> str | None:
    with sessions() as session:
        undecided = len(undecided_requests(session, NAME))
    return f"shadow mode: {pluralize(undecided, 'report request')} to evaluate" if undecided else None


report_generation_schedule = every_minute_if(
    report_generation,
    find_work=_find_work,
    find_shadow_work=_find_shadow_work,
    no_work="No report request is waiting and no email is due.",
    description="Every minute, if a report request is waiting or an email is due.",
)

defs = dg.Definitions(assets=report_assets, jobs=[report_generation], schedules=[report_generation_schedule])
