"""Approves pending disbursement requests by the rules in `approval_rules`, as soon as a rule matches.

`pending_dr_sensor` long-polls for changes to pending requests. It evaluates the rules as a run would, up to the first
approval, and requests a run only if there is one: a request that no rule approves never launches a run.
See docs/decisions/approvals.md.
"""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import dagster as dg

from seedtrust_ops.database.listen_notify import REQUEST_PENDING
from seedtrust_ops.domain.approvals.by_rule import approve_by_rules, find_first_approval, preview_by_rules
from seedtrust_ops.domain.approvals.writer import approve, require_all_approved
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.shadow_mode.decisions import evaluation_times
from seedtrust_ops.domain.shadow_mode.job_dry_runs import dry_run_approvals_by_rule
from seedtrust_ops.orchestration.approval_output import (
    ApprovalConfig,
    approval_result,
    approved_requests,
    report_approvals,
)
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, MailResource
from seedtrust_ops.orchestration.email_delivery import send_queued_emails
from seedtrust_ops.orchestration.job_factory import automation_status, owners_and_tags, single_op_job
from seedtrust_ops.orchestration.long_poll import poll_or_wait
from seedtrust_ops.orchestration.retry_pauses import describe_pause, read_recent_runs
from seedtrust_ops.orchestration.schedules import office_zone
from seedtrust_ops.orchestration.shadow_runs import is_in_shadow_mode
from seedtrust_ops.orchestration.user_facing_failures import user_facing_failures
from seedtrust_ops.tag_names import REASON_TAG

NAME = "rule_based_approval"
SHADOW_INTERVAL = timedelta(minutes=5)
COOLDOWN_RATIO = 20
"""After an evaluation that found nothing, the sensor pauses for this many times its duration. With 100,000 pending
requests that no rule approves that is a minute or two; normally it is less than the sensor's interval."""


@single_op_job(
    kind="postgres",
    shadow=lambda run: dry_run_approvals_by_rule(run.sessions, run.job, zone=office_zone()),
    legacy_name="FastAPI auto-approver",
)
def rule_based_approval(
    context: dg.OpExecutionContext, config: ApprovalConfig, database: DatabaseResource, mail: MailResource
) -> dict[str, Any]:
    """Approve the pending requests that an approval rule matches, oldest first, within each rule's limits.

    To preview, launch it with `dry_run: true`: the run lists what it would approve and approves nothing.
    """
    if config.dry_run:
        report = run_in_transaction(database.sessions(), partial(preview_by_rules, zone=office_zone()))
    else:
        report = approve(database.sessions(), partial(approve_by_rules, zone=office_zone()))
    report_approvals(context, report, dry_run=config.dry_run)
    if not config.dry_run:
        send_queued_emails(context, database, mail)
        require_all_approved(report)
    return approval_result(report, dry_run=config.dry_run)


@dg.sensor(
    name="pending_dr_sensor",
    job=rule_based_approval,
    minimum_interval_seconds=5,
    default_status=automation_status()[1],
    description="Requests a run when an approval rule matches a pending request; otherwise shows why none does.",
    **owners_and_tags(NAME),
)
def pending_dr_sensor(context: dg.SensorEvaluationContext, database: DatabaseResource) -> dg.RunRequest | dg.SkipReason:
    """Request a run if a rule approves a pending request now and no run is in progress; otherwise wait for a change."""
    if context.cursor and datetime.now(UTC) < datetime.fromisoformat(context.cursor):
        return dg.SkipReason(
            f"The last evaluation was slow and found nothing to approve. The next is at {context.cursor}."
        )
    with user_facing_failures():
        evaluate = _evaluate_in_shadow_mode if is_in_shadow_mode(NAME) else _evaluate
        return poll_or_wait(
            database, REQUEST_PENDING, partial(evaluate, context, database), cooldown_ratio=COOLDOWN_RATIO
        )


def _evaluate(context: dg.SensorEvaluationContext, database: DatabaseResource) -> dg.RunRequest | dg.SkipReason:
    began = datetime.now(UTC)
    with database.sessions()() as session:
        approval = find_first_approval(session, office_zone())
    if approval is None:
        ended = datetime.now(UTC)
        context.update_cursor((ended + (ended - began) * COOLDOWN_RATIO).isoformat(timespec="seconds"))
        return dg.SkipReason(
            "No pending request can be approved now: none matches an enabled rule within the minimum balance of its "
            "case and the rule's daily limit."
        )
    reason = _find_reason_to_wait(context.instance, datetime.now(UTC))
    if reason is not None:
        return dg.SkipReason(reason)
    return dg.RunRequest(tags={REASON_TAG: f"rule {approval.rule.id} approves request {approval.request.id}"})


def _evaluate_in_shadow_mode(
    context: dg.SensorEvaluationContext, database: DatabaseResource
) -> dg.RunRequest | dg.SkipReason:
    """Request a run every few minutes: the legacy approver leaves no request pending to search for."""
    now = datetime.now(UTC)
    with database.sessions()() as session:
        times = evaluation_times(session, NAME)
    if times is not None and now - times.last < SHADOW_INTERVAL:
        return dg.SkipReason(f"Shadow mode: last evaluated at {times.last.astimezone(UTC):%H:%M:%S} UTC.")
    reason = _find_reason_to_wait(context.instance, now)
    return dg.SkipReason(reason) if reason is not None else dg.RunRequest(tags={REASON_TAG: "shadow mode evaluation"})


def _find_reason_to_wait(instance: dg.DagsterInstance, now: datetime) -> str | None:
    """Return why no run is requested now (one is in progress, or the last runs failed), or None."""
    records = read_recent_runs(instance, NAME)
    in_progress = next((record for record in records if not record.dagster_run.is_finished), None)
    if in_progress is not None:
        return f"Run {in_progress.dagster_run.run_id} is in progress."
    pause = describe_pause(records, now)
    return None if pause is None else pause[0].upper() + pause[1:]


defs = dg.Definitions(assets=[approved_requests], jobs=[rule_based_approval], sensors=[pending_dr_sensor])
