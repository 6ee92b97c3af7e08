"""The job that sends a queued Huntington batch to the bank, and the sensor that launches it.

`huntington_batch_sensor` listens for a batch to become `queued` and requests a run at once. To launch the job by hand,
enter a batch id.
See docs/decisions/batch-runs.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import dagster as dg
from pydantic import Field

from seedtrust_ops.config import get_settings
from seedtrust_ops.dagster_internals import require_payment_internals
from seedtrust_ops.database.listen_notify import BATCH_QUEUED
from seedtrust_ops.domain.shadow_mode.decisions import Decision, undecided_batches
from seedtrust_ops.domain.shadow_mode.transfer_dry_runs import dry_run_batch
from seedtrust_ops.domain.transfers.batch_lifecycle import QueuedBatch, hold_batch, list_queued_batches, lock_batches
from seedtrust_ops.domain.transfers.batch_processor import BatchReport, process_batch
from seedtrust_ops.domain.transfers.failure_notices import FAILURE_EMAIL_KINDS
from seedtrust_ops.domain.transfers.kill_switch import TransfersHalted, get_halt_reason
from seedtrust_ops.domain.transfers.sending_context import BatchRun, TransferOptions
from seedtrust_ops.errors import InputError
from seedtrust_ops.formatting import MAX_ID, format_duration
from seedtrust_ops.job_policies import run_tags
from seedtrust_ops.orchestration.dagster_resources import (
    DatabaseResource,
    FieldCipherResource,
    HuntingtonResource,
    MailResource,
)
from seedtrust_ops.orchestration.email_delivery import configured_alert_emails, sending_queued_emails
from seedtrust_ops.orchestration.job_factory import JobConfig, automation_status, owners_and_tags, single_op_job
from seedtrust_ops.orchestration.long_poll import poll_or_wait
from seedtrust_ops.orchestration.metadata import batch_metadata
from seedtrust_ops.orchestration.retry_pauses import describe_pause, read_recent_runs
from seedtrust_ops.orchestration.run_cancellation import canceled_by_person_at, was_canceled_by_person
from seedtrust_ops.orchestration.shadow_runs import OpContext, ShadowRun, is_in_shadow_mode
from seedtrust_ops.orchestration.user_facing_failures import user_facing_failures
from seedtrust_ops.tag_names import BATCH_TAG, GENERATION_TAG, HALTED_TAG

NAME = "process_huntington_batch"
CLAIM_TIMEOUT = timedelta(minutes=5)
"""A run that left the queue this long ago without claiming its batch is assumed to have crashed."""
SAME_RUN_RETRY_WINDOW = timedelta(seconds=30)
"""How long a run that returned its batch may take to retry by itself: longer than any pause between its retries."""
HELD_BY_RUN = "is already being processed by run"
"""In the log of a run whose batch another run holds; `sandbox/demo` looks for it."""
EMAIL_SECONDS = 60.0
"""A run sends the emails about its failed transfers for at most this long; auto-heal sends the rest."""
NO_BATCH = 0
"""The launchpad's default, until a person enters a batch id."""
CANCELED_RUNS_READ = 200
"""More runs than people cancel while batches wait in the queue."""
MAX_REQUESTS_PER_TICK = 50
"""Keeps a tick well within Dagster's time limit, however many batches are queued."""


class BatchIdMissing(InputError):
    """A person launched the job without a batch id."""


class ProcessBatchConfig(JobConfig):
    """The batch to send."""

    batch_id: int = Field(
        default=NO_BATCH,
        le=MAX_ID,
        description="The id of the queued Huntington batch, as shown on the batch screen. Replace the default 0, which "
        "means no batch.",
    )


def _decide(run: ShadowRun) -> Sequence[Decision]:
    config: ProcessBatchConfig = run.arguments["config"]
    field_cipher: FieldCipherResource = run.arguments["field_cipher"]
    return dry_run_batch(run.sessions, _batch_run(run.context, config, run.arguments["huntington"], field_cipher))


@single_op_job(
    kind="bank",
    shadow=_decide,
    legacy_name="Huey PROCESS_HUNTINGTON_BATCH",
)
def process_huntington_batch(
    context: dg.OpExecutionContext,
    config: ProcessBatchConfig,
    database: DatabaseResource,
    huntington: HuntingtonResource,
    field_cipher: FieldCipherResource,
    mail: MailResource,
) -> dict[str, Any]:
    """Send one queued Huntington batch to the bank: each transfer exactly once, regardless of crashes.

    To launch by hand, replace the 0 in the launchpad with the batch id.
    """
    require_payment_internals()
    if config.batch_id == NO_BATCH:
        raise BatchIdMissing(
            "No batch id was given. Nothing was sent. Open this run in the launchpad, replace the 0 with the batch id, "
            "and launch it."
        )
    if context.run.tags.get(BATCH_TAG) != str(config.batch_id):
        # A person launched this run, or re-executed another batch's: the tag lists it with the batch's other runs.
        context.instance.add_run_tags(context.run_id, {BATCH_TAG: str(config.batch_id)})
    with sending_queued_emails(context, database, mail, max_seconds=EMAIL_SECONDS, kinds=FAILURE_EMAIL_KINDS):
        try:
            run = _batch_run(context, config, huntington, field_cipher)
            report = process_batch(database.sessions(), huntington.open, run)
        except TransfersHalted:
            # Not a failure that delays the next run: the batch is sent as soon as sending is resumed.
            context.instance.add_run_tags(context.run_id, {HALTED_TAG: "true"})
            raise
        context.log.info(summarize_batch(report))
        # Before the emails' own figures, which are of less use to who opens the run.
        context.add_output_metadata(batch_metadata(database.sessions(), report))
    returned = {
        "batch_id": report.batch_id,
        "status": report.status,
        "held_by": report.held_by,
        "counts": report.counts,
    }
    if report.awaits is not None:
        returned["awaits_funding"] = {
            "needed_cents": report.awaits.needed_cents,
            "missing_cents": report.awaits.missing_cents,
        }
    return returned


@dg.sensor(
    name="huntington_batch_sensor",
    job=process_huntington_batch,
    minimum_interval_seconds=1,
    default_status=automation_status()[1],
    description="Requests a run for every batch as soon as it is queued, or reports why a batch has to wait.",
    **owners_and_tags(NAME),
)
def huntington_batch_sensor(
    context: dg.SensorEvaluationContext, database: DatabaseResource
) -> dg.SensorResult | dg.SkipReason:
    """Request a run for every queued batch that has none pending; listen for the next one if there is none."""
    with user_facing_failures():
        return poll_or_wait(database, BATCH_QUEUED, partial(_evaluate, context.instance, database))


def _evaluate(instance: dg.DagsterInstance, database: DatabaseResource) -> dg.SensorResult | dg.SkipReason:
    with database.sessions()() as session:
        halted = get_halt_reason(session, get_settings().transfers.halted)
        batches = undecided_batches(session, NAME) if is_in_shadow_mode(NAME) else list_queued_batches(session)
    if halted is not None:
        return dg.SkipReason(f"{halted} Batches waiting in the queue: {len(batches)}.")
    if not batches:
        return dg.SkipReason("No batch is queued.")
    held = [] if is_in_shadow_mode(NAME) else _hold_canceled(instance, database, batches)
    requests: list[dg.RunRequest] = []
    wait_reasons = [f"Batch {batch_id} is held, because a person canceled its run." for batch_id in held]
    for batch in batches:
        if batch.batch_id in held:
            continue
        wait_reason = _find_reason_to_wait(instance, batch)
        if wait_reason is None:
            requests.append(_run_request(instance, batch))
        else:
            wait_reasons.append(wait_reason)
        if len(requests) == MAX_REQUESTS_PER_TICK:
            break
    return dg.SensorResult(run_requests=requests) if requests else dg.SkipReason(" ".join(wait_reasons))


def _hold_canceled(
    instance: dg.DagsterInstance, database: DatabaseResource, batches: Sequence[QueuedBatch]
) -> list[int]:
    """Hold the batches of which a person canceled a run after they were queued; return them."""
    canceled = list(_find_canceled(instance, batches))
    if not canceled:
        return []
    held = []
    with database.sessions().begin() as session:
        lock_batches(session, canceled)
        # Not those that another run has claimed, or a person has changed, since they were read.
        still_queued = {(batch.batch_id, batch.queued_at) for batch in list_queued_batches(session)}
        for batch in batches:
            if batch.batch_id in canceled and (batch.batch_id, batch.queued_at) in still_queued:
                hold_batch(session, batch.batch_id, statuses=("queued",))
                held.append(batch.batch_id)
    return held


def _find_canceled(instance: dg.DagsterInstance, batches: Sequence[QueuedBatch]) -> Iterator[int]:
    by_id = {str(batch.batch_id): batch for batch in batches}
    waiting_since = min((batch.queued_at for batch in batches if batch.queued_at is not None), default=None)
    canceled = dg.RunsFilter(
        job_name=NAME,
        statuses=[dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED],
        updated_after=waiting_since,
    )
    for record in instance.get_run_records(canceled, limit=CANCELED_RUNS_READ):
        batch = by_id.get(_configured_batch_id(record.dagster_run))
        if batch is None:
            continue
        canceled_at = canceled_by_person_at(instance, record.dagster_run.run_id)
        if canceled_at is not None and (batch.queued_at is None or canceled_at >= batch.queued_at):
            yield batch.batch_id


def _configured_batch_id(run: dg.DagsterRun) -> str:
    """Return the batch id in a run's config, which a person may have written, also if it has no tag yet."""
    node: object = run.run_config
    for key in ("ops", NAME, "config", "batch_id"):
        node = node.get(key) if isinstance(node, Mapping) else None
    return str(node)


def summarize_batch(report: BatchReport) -> str:
    """Return the state of a batch in one or two sentences."""
    if report.held_by is not None:
        return f"Batch {report.batch_id} {HELD_BY_RUN} {report.held_by}. This run did nothing."
    counts = ", ".join(f"{count} {status}" for status, count in sorted(report.counts.items()))
    if report.awaits is not None:
        return (
            f"Batch {report.batch_id} waits for funds: {counts}. {report.awaits.describe()} It is checked again in "
            f"{format_duration(get_settings().transfers.funding_retry_seconds)}, and sent once it is covered."
        )
    open_note = f" Auto-heal will look up the {report.still_open} still processing." if report.still_open else ""
    return f"Batch {report.batch_id} is {report.status}: {counts}.{open_note}"


def transfer_options(huntington: HuntingtonResource) -> TransferOptions:
    """Return the configuration for sending."""
    transfers = get_settings().transfers
    return TransferOptions(
        funding_account_id=huntington.settings.funding_account_id,
        concurrency=huntington.settings.concurrency,
        lease_seconds=transfers.lease_seconds,
        unknown_grace_seconds=transfers.unknown_grace_seconds,
        funding_retry_seconds=transfers.funding_retry_seconds,
        # A second safeguard: nothing is ever sent in shadow mode.
        halted_by_environment=transfers.halted or is_in_shadow_mode(NAME),
    )


def _batch_run(
    context: OpContext, config: ProcessBatchConfig, huntington: HuntingtonResource, field_cipher: FieldCipherResource
) -> BatchRun:
    return BatchRun(
        batch_id=config.batch_id,
        holder=context.run_id,
        requested_at=_requested_at(context),
        cipher=field_cipher.cipher(),
        options=transfer_options(huntington),
        was_canceled_by_person=partial(was_canceled_by_person, context.instance),
        alert_emails=configured_alert_emails(),
    )


def _requested_at(context: OpContext) -> datetime:
    record = context.instance.get_run_record_by_id(context.run_id)
    return record.create_timestamp if record is not None else datetime.now(UTC)


def _find_reason_to_wait(instance: dg.DagsterInstance, batch: QueuedBatch) -> str | None:
    """Return why no run is requested now: it waits for funds, a run is pending, or the last runs failed recently."""
    if batch.waits_until is not None:
        return (
            f"Batch {batch.batch_id} waits for funds in the funding account and is checked again at "
            f"{batch.waits_until.astimezone(UTC):%H:%M:%S} UTC."
        )
    records = read_recent_runs(instance, NAME, {BATCH_TAG: str(batch.batch_id)})
    now = datetime.now(UTC)
    for record in records:
        if not record.dagster_run.is_finished and _will_claim(record, batch, now):
            return f"Batch {batch.batch_id}: run {record.dagster_run.run_id} is already pending."
    # Runs from before it was queued do not count, nor those that the kill switch stopped.
    pause = describe_pause(
        (
            record
            for record in records
            if HALTED_TAG not in record.dagster_run.tags
            and (batch.queued_at is None or record.create_timestamp >= batch.queued_at)
        ),
        now,
    )
    return None if pause is None else f"Batch {batch.batch_id}: {pause}"


def _will_claim(record: dg.RunRecord, batch: QueuedBatch, now: datetime) -> bool:
    """Return whether an unfinished run may still claim the batch, rather than having crashed unnoticed."""
    run = record.dagster_run
    if run.run_id == batch.last_holder:
        return batch.lease_ended_at is not None and now - batch.lease_ended_at < SAME_RUN_RETRY_WINDOW
    if run.tags.get(GENERATION_TAG) != str(batch.generation):
        return False
    return run.status is dg.DagsterRunStatus.QUEUED or now - record.update_timestamp < CLAIM_TIMEOUT


def _run_request(instance: dg.DagsterInstance, batch: QueuedBatch) -> dg.RunRequest:
    """Build the run request; its key is the batch, its generation, and the number of tries of that generation."""
    tags = {BATCH_TAG: str(batch.batch_id), GENERATION_TAG: str(batch.generation)}
    tries = instance.get_runs_count(dg.RunsFilter(job_name=NAME, tags=tags))
    return dg.RunRequest(
        run_key=f"huntington-batch-{batch.batch_id}-generation-{batch.generation}-try-{tries + 1}",
        run_config=dg.RunConfig(ops={NAME: ProcessBatchConfig(batch_id=batch.batch_id)}),
        tags=run_tags(NAME, priority_offset=batch.priority) | tags,
    )


defs = dg.Definitions(jobs=[process_huntington_batch], sensors=[huntington_batch_sensor])
