"""Makes the reports that people asked for, every minute in which one is asked for, and delivers letters that are due.

Each report is a materialization of asset `reports/<kind>`; what is wrong with one request fails that one alone.
"""

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field
from sqlalchemy.orm import Session

from seedtrust_ops.config import get_settings
from seedtrust_ops.domain.outbox import due_letters
from seedtrust_ops.domain.reports.report_kinds import TITLES
from seedtrust_ops.domain.reports.request_queue import requests_waiting
from seedtrust_ops.domain.shadow_mode.undecided_reports import undecided_requests
from seedtrust_ops.job_policies import job_policy
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, MailResource, StorageResource
from seedtrust_ops.orchestration.email_delivery import deliver_queued_letters
from seedtrust_ops.orchestration.job_factory import JobConfig, automation_status, owners_and_tags, single_op_job
from seedtrust_ops.orchestration.metadata import Link, asset_link, markdown_table, report_metadata
from seedtrust_ops.orchestration.shadow_runs import in_shadow, run_in_shadow
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures

if TYPE_CHECKING:
    from seedtrust_ops.domain.reports.generator import UnmetRequest

NAME = "report_generation"
SEVERITY = job_policy(NAME).severity
EVERY_REPORT = 0
"""What the launchpad shows until a person puts the number of one request there."""

report_assets = [
    dg.AssetSpec(
        key=dg.AssetKey(["reports", kind]),
        group_name="reports",
        kinds={"s3"},
        description=f"Each report of the kind '{title}' that somebody asked for; `{NAME}` makes them.",
        **owners_and_tags(NAME),
    )
    for kind, title in TITLES.items()
]


class ReportGenerationConfig(JobConfig):
    """Which reports to make."""

    report_id: int = Field(
        default=EVERY_REPORT,
        ge=0,
        description="The number of one report request, to make that one now, also where it failed before. 0 makes all "
        "that wait.",
    )


@dg.op(name=NAME, retry_policy=RETRIES, tags={"kind": "s3"})
def report_generation_op(
    context: dg.OpExecutionContext,
    config: ReportGenerationConfig,
    database: DatabaseResource,
    storage: StorageResource,
    mail: MailResource,
) -> dict[str, Any]:
    """Meet the report requests that wait, oldest first, for at most 50 seconds; then send the letters that are due.

    By hand: put the number of one request in the place of the 0 in the launchpad, to have that one made now.
    """
    # What writes spreadsheets, PDFs and charts takes a second to load, and only a run needs it.
    from seedtrust_ops.domain.reports.generator import MadeReport, generate_reports, meet_named_request
    from seedtrust_ops.domain.shadow_mode.report_dry_runs import reports

    if in_shadow(NAME):
        return run_in_shadow(context, NAME, database, partial(reports, zone=get_settings().location.timezone))

    outcomes: list[tuple[int, Link | str, str, str]] = []
    with user_facing_failures():
        zone = get_settings().location.timezone
        sessions = database.sessions()
        with sessions() as session:
            waiting = requests_waiting(session)
        if config.report_id != EVERY_REPORT:
            work: Iterable[MadeReport | UnmetRequest] = [
                meet_named_request(sessions, storage.open(), config.report_id, zone=zone)
            ]
        else:
            # Where only letters wait, the bucket's variable is not needed.
            work = generate_reports(sessions, storage.open(), zone=zone) if waiting else ()
        for one in work:
            request = one.request
            if isinstance(one, MadeReport):
                asset = asset_link(["reports", request.kind], request.kind)
                outcomes.append((request.id, asset, "made", one.where))
                context.log_event(
                    dg.AssetMaterialization(
                        asset_key=["reports", request.kind],
                        description=f"{one.built.report.title}: {one.built.report.about}",
                        metadata=report_metadata(one),
                    )
                )
            else:
                outcome = "put back" if one.again else "failed"
                outcomes.append((request.id, request.kind, outcome, one.reason))
                context.log.warning(f"Report request {request.id}: {one.reason}")
    context.add_output_metadata({"requests": markdown_table(["request", "kind", "outcome", "where or why"], outcomes)})
    letters = deliver_queued_letters(context, database, mail)
    counts = Counter(outcome for _, _, outcome, _ in outcomes)
    context.log.info(
        f"{counts['made']} reports were made, {counts['failed']} could not be, {counts['put back']} will be tried "
        "again."
    )
    return {
        **{name: [one[0] for one in outcomes if one[2] == name] for name in ("made", "failed", "put back")},
        "letters_sent": letters.sent,
    }


report_generation = single_op_job(report_generation_op, SEVERITY, legacy_name="cron job_report_generation")


@dg.schedule(
    name="report_generation_schedule",
    job=report_generation,
    cron_schedule="* * * * *",
    execution_timezone=get_settings().location.timezone,
    default_status=automation_status()[0],
    description="Every minute, where a report is asked for or a letter is due.",
    **owners_and_tags(NAME),
)
def report_generation_schedule(
    context: dg.ScheduleEvaluationContext, database: DatabaseResource
) -> dg.RunRequest | dg.SkipReason:
    """Every minute, where a report is asked for or a letter is due."""
    with user_facing_failures(), database.sessions()() as session:
        reason = _what_waits(session)
    if reason is None:
        return dg.SkipReason("No report is asked for and no letter is due.")
    return dg.RunRequest(tags={"seedtrust/reason": reason})


def _what_waits(session: Session) -> str | None:
    if in_shadow(NAME):
        undecided = len(undecided_requests(session, NAME))
        return f"{undecided} report requests are to be looked at in shadow" if undecided else None
    requests, letters = requests_waiting(session), due_letters(session)
    return f"{requests} report requests and {letters} letters wait" if requests or letters else None
