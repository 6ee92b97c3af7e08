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
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.shadow_mode import job_dry_runs
from seedtrust_ops.domain.shadow_mode.decisions import evaluation_times
from seedtrust_ops.orchestration.approval_output import ApprovalConfig, approval_result, report_approvals
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, MailResource
from seedtrust_ops.orchestration.email_delivery import send_queued_emails
from seedtrust_ops.orchestration.job_factory import automation_status, owners_and_tags, single_op_job
from seedtrust_ops.orchestration.long_poll import poll_or_wait
from seedtrust_ops.orchestration.schedules import office_zone
from seedtrust_ops.orchestration.shadow_runs import is_in_shadow_mode, run_in_shadow_mode
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures
from seedtrust_ops.severity import Severity

NAME = "rule_based_approval"
SEVERITY = Severity.CRITICAL
MIN_BACKOFF = timedelta(seconds=30)
MAX_BACKOFF = timedelta(minutes=10)
SHADOW_INTERVAL = timedelta(minutes=5)
COOLDOWN_RATIO = 20
"""After an evaluation that found nothing, the sensor pauses for this many times its duration. With 100,000 pending
requests that no rule approves that is a minute or two; normally it is less than the sensor's interval."""


@dg.op(name=NAME, retry_policy=RETRIES, tags={"kind": "postgres"})
def rule_based_approval_op(
    context: dg.OpExecutionContext, config: ApprovalConfig, database: DatabaseResource, mail: MailResource
) -> dict[str, Any]:
    """Approve the pending requests that an approval rule matches, oldest first, within each rule's limits.

    To preview, launch it with `dry_run: true`: the run lists what it would approve and approves nothing.
    """
    if is_in_shadow_mode(NAME) and not config.dry_run:
        return run_in_shadow_mode(
            context, NAME, database, partial(job_dry_runs.dry_run_approvals_by_rule, zone=office_zone())
        )
    work = preview_by_rules if config.dry_run else approve_by_rules
    with user_facing_failures():
        report = run_in_transaction(database.sessions(), partial(work, zone=office_zone()))
    report_approvals(context, report, dry_run=config.dry_run)
    if not config.dry_run:
        send_queued_emails(context, database, mail)
    return approval_result(report, dry_run=config.dry_run)


rule_based_approval = single_op_job(rule_based_approval_op, SEVERITY, legacy_name="FastAPI auto-approver")


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
        return poll_or_wait(
            database, REQUEST_PENDING, partial(_evaluate, context, database), cooldown_ratio=COOLDOWN_RATIO
        )


def _evaluate(context: dg.SensorEvaluationContext, database: DatabaseResource) -> dg.RunRequest | dg.SkipReason:
    if is_in_shadow_mode(NAME):
        return _evaluate_in_shadow_mode(context, database)
    began = datetime.now(UTC)
    with database.sessions()() as session:
        search = find_first_approval(session, office_zone())
    if search.first is None:
        ended = datetime.now(UTC)
        context.update_cursor((ended + (ended - began) * COOLDOWN_RATIO).isoformat(timespec="seconds"))
        if not search.evaluated:
            return dg.SkipReason("No pending request could match an enabled rule.")
        return dg.SkipReason(
            f"No pending request can be approved now ({search.evaluated} evaluated): each would violate a minimum "
            "balance or a rule's daily limit."
        )
    reason = _find_reason_to_wait(context.instance, datetime.now(UTC))
    if reason is not None:
        return dg.SkipReason(reason)
    return dg.RunRequest(
        tags={"seedtrust/reason": f"rule {search.first.rule.id} approves request {search.first.request.id}"}
    )


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
    return (
        dg.SkipReason(reason)
        if reason is not None
        else dg.RunRequest(tags={"seedtrust/reason": "shadow mode evaluation"})
    )


def _find_reason_to_wait(instance: dg.DagsterInstance, now: datetime) -> str | None:
    """Return why no run is requested now (one is in progress, or the last runs failed), or None."""
    records = instance.get_run_records(dg.RunsFilter(job_name=NAME), limit=20)
    in_progress = next((record for record in records if not record.dagster_run.is_finished), None)
    if in_progress is not None:
        return f"Run {in_progress.dagster_run.run_id} is in progress."
    failures = 0
    for record in records:
        if record.dagster_run.status is dg.DagsterRunStatus.SUCCESS:
            break
        failures += 1
    if not failures or records[0].end_time is None:
        return None
    backoff = min(MIN_BACKOFF * 2 ** (failures - 1), MAX_BACKOFF)
    next_try = datetime.fromtimestamp(records[0].end_time, UTC) + backoff
    if now >= next_try:
        return None
    which = "The last run" if failures == 1 else f"The last {failures} runs"
    return f"{which} did not succeed. The next run is at {next_try:%H:%M:%S} UTC."
