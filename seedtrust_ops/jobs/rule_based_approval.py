"""Approves pending disbursement requests by the rules in `approval_rules`, as soon as a rule approves one.

`pending_dr_sensor` waits in the database for a change of a pending request. It decides as a run would, up to the first
approval, and asks for a run only where there is one: a request that no rule approves launches nothing, however long
it waits.
"""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import dagster as dg

from seedtrust_ops.database.listen_notify import REQUEST_PENDING
from seedtrust_ops.domain.approvals.by_rule import approve_by_rules, what_waits, would_approve_by_rules
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.shadow_mode import job_dry_runs
from seedtrust_ops.domain.shadow_mode.decisions import looks_of
from seedtrust_ops.orchestration.approval_output import Approving, result_of, show_approvals
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, MailResource
from seedtrust_ops.orchestration.email_delivery import deliver_queued_letters
from seedtrust_ops.orchestration.job_factory import automation_status, owners_and_tags, single_op_job
from seedtrust_ops.orchestration.long_poll import poll_or_wait
from seedtrust_ops.orchestration.schedules import office_zone
from seedtrust_ops.orchestration.shadow_runs import in_shadow, run_in_shadow
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures
from seedtrust_ops.severity import Severity

NAME = "rule_based_approval"
SEVERITY = Severity.CRITICAL
FIRST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(minutes=10)
SHADOW_LOOKS_EVERY = timedelta(minutes=5)
REST_AFTER_A_LOOK = 20
"""A look that found nothing to approve is followed by so many times its own length without one: where a hundred
thousand requests wait that no rule approves, that is a minute or two, and else less than the sensor's interval."""


@dg.op(name=NAME, retry_policy=RETRIES, tags={"kind": "postgres"})
def rule_based_approval_op(
    context: dg.OpExecutionContext, config: Approving, database: DatabaseResource, mail: MailResource
) -> dict[str, Any]:
    """Approve what the approval rules match, oldest request first, within each rule's limits.

    By hand: `dry_run: true` in the launchpad shows what would be approved, and approves nothing.
    """
    if in_shadow(NAME) and not config.dry_run:
        return run_in_shadow(context, NAME, database, partial(job_dry_runs.approvals_by_rule, zone=office_zone()))
    work = would_approve_by_rules if config.dry_run else approve_by_rules
    with user_facing_failures():
        report = run_in_transaction(database.sessions(), partial(work, zone=office_zone()))
    show_approvals(context, report, dry_run=config.dry_run)
    if not config.dry_run:
        deliver_queued_letters(context, database, mail)
    return result_of(report, dry_run=config.dry_run)


rule_based_approval = single_op_job(rule_based_approval_op, SEVERITY, legacy_name="FastAPI auto-approver")


@dg.sensor(
    name="pending_dr_sensor",
    job=rule_based_approval,
    minimum_interval_seconds=5,
    default_status=automation_status()[1],
    description="Asks for a run as soon as an approval rule approves a pending request, and says why where none does.",
    **owners_and_tags(NAME),
)
def pending_dr_sensor(context: dg.SensorEvaluationContext, database: DatabaseResource) -> dg.RunRequest | dg.SkipReason:
    """Ask for a run where a rule approves a pending request now, and no run is on its way; wait for one that is."""
    if context.cursor and datetime.now(UTC) < datetime.fromisoformat(context.cursor):
        return dg.SkipReason(f"Nothing was approved by the last look, a long one; the next is at {context.cursor}.")
    with user_facing_failures():
        return poll_or_wait(database, REQUEST_PENDING, partial(_look, context, database), rest=REST_AFTER_A_LOOK)


def _look(context: dg.SensorEvaluationContext, database: DatabaseResource) -> dg.RunRequest | dg.SkipReason:
    if in_shadow(NAME):
        return _look_in_shadow(context, database)
    began = datetime.now(UTC)
    with database.sessions()() as session:
        waiting = what_waits(session, office_zone())
    if waiting.first is None:
        ended = datetime.now(UTC)
        context.update_cursor((ended + (ended - began) * REST_AFTER_A_LOOK).isoformat(timespec="seconds"))
        if not waiting.looked_at:
            return dg.SkipReason("No pending request is one that an enabled rule could approve.")
        return dg.SkipReason(
            f"No rule approves any of the {waiting.looked_at} pending requests now: an account's minimum or a "
            "rule's daily limit would be broken."
        )
    wait = _why_wait(context.instance, datetime.now(UTC))
    if wait is not None:
        return dg.SkipReason(wait)
    return dg.RunRequest(
        tags={"seedtrust/reason": f"rule {waiting.first.rule.id} approves request {waiting.first.request.id}"}
    )


def _look_in_shadow(context: dg.SensorEvaluationContext, database: DatabaseResource) -> dg.RunRequest | dg.SkipReason:
    """Ask for a run every few minutes: the legacy approver leaves nothing pending that could be looked for."""
    now = datetime.now(UTC)
    with database.sessions()() as session:
        looks = looks_of(session, NAME)
    if looks is not None and now - looks.last < SHADOW_LOOKS_EVERY:
        return dg.SkipReason(f"In shadow; the last look was at {looks.last.astimezone(UTC):%H:%M:%S} UTC.")
    wait = _why_wait(context.instance, now)
    return dg.SkipReason(wait) if wait is not None else dg.RunRequest(tags={"seedtrust/reason": "a look in shadow"})


def _why_wait(instance: dg.DagsterInstance, now: datetime) -> str | None:
    """Return why no run is asked for now: one is on its way, or the last ones failed a moment ago."""
    records = instance.get_run_records(dg.RunsFilter(job_name=NAME), limit=20)
    on_its_way = next((record for record in records if not record.dagster_run.is_finished), None)
    if on_its_way is not None:
        return f"Run {on_its_way.dagster_run.run_id} is on its way."
    failures = 0
    for record in records:
        if record.dagster_run.status is dg.DagsterRunStatus.SUCCESS:
            break
        failures += 1
    if not failures or records[0].end_time is None:
        return None
    pause = min(FIRST_PAUSE * 2 ** (failures - 1), LONGEST_PAUSE)
    next_try = datetime.fromtimestamp(records[0].end_time, UTC) + pause
    if now >= next_try:
        return None
    which = "The last run" if failures == 1 else f"The last {failures} runs"
    return f"{which} did not succeed; the next is at {next_try:%H:%M:%S} UTC."
