"""Sends a queued Huntington batch to the bank, as soon as it is queued.

`huntington_batch_sensor` waits in the database for a batch to become `queued` and asks for a run at once; by hand,
launch it with a batch id.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import dagster as dg
from pydantic import Field

from seedtrust_ops.config import get_settings
from seedtrust_ops.database.listen_notify import BATCH_QUEUED
from seedtrust_ops.domain.db_transaction import Sessions
from seedtrust_ops.domain.shadow_mode.decisions import Decision
from seedtrust_ops.domain.shadow_mode.transfer_dry_runs import batch as rehearse_batch
from seedtrust_ops.domain.shadow_mode.transfer_dry_runs import unseen_batches
from seedtrust_ops.domain.transfers.batch_lifecycle import QueuedBatch, queued_batches
from seedtrust_ops.domain.transfers.batch_processor import BatchReport, TransferRules, process_batch
from seedtrust_ops.domain.transfers.kill_switch import TransfersHalted, why_halted
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, FieldCipherResource, HuntingtonResource
from seedtrust_ops.orchestration.job_factory import JobConfig, automation_status, owners_and_tags, single_op_job
from seedtrust_ops.orchestration.long_poll import poll_or_wait
from seedtrust_ops.orchestration.metadata import batch_metadata
from seedtrust_ops.orchestration.shadow_runs import in_shadow, run_in_shadow
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures
from seedtrust_ops.severity import Severity, run_tags
from seedtrust_ops.tag_names import BATCH_TAG

NAME = "process_huntington_batch"
SEVERITY = Severity.CRITICAL
GENERATION_TAG = "seedtrust/generation"
HALTED_TAG = "seedtrust/halted"
CLAIM_WITHIN = timedelta(minutes=5)
"""A run that left the queue so long ago and has not claimed its batch is taken for dead."""
TRY_AGAIN_WITHIN = timedelta(seconds=30)
"""How long a run that gave its batch back may take to try again by itself: longer than any pause of its retries."""
FIRST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(minutes=10)
LONGEST_SECONDS = 6 * 3600
NO_BATCH = 0
"""What the launchpad shows until a person puts a batch's number there."""
REQUESTS_A_TICK = 50
"""So that a tick stays well under the time that Dagster gives it, however many batches are queued."""


class NoBatchNamed(SeedTrustError):
    """A person launched the job without the number of a batch."""


class ProcessBatchConfig(JobConfig):
    """Which batch to send."""

    batch_id: int = Field(
        default=NO_BATCH,
        description="The number of the queued Huntington batch, as the batch screen shows it. Put it in the place of "
        "the 0, which stands for none.",
    )


@dg.op(name=NAME, retry_policy=RETRIES, tags={"kind": "bank"})
def process_huntington_batch_op(
    context: dg.OpExecutionContext,
    config: ProcessBatchConfig,
    database: DatabaseResource,
    huntington: HuntingtonResource,
    field_cipher: FieldCipherResource,
) -> dict[str, Any]:
    """Send one queued Huntington batch: each transfer exactly once, whatever dies in between.

    By hand: put the batch's number in the place of the 0 in the launchpad.
    """
    if in_shadow(NAME):
        look = partial(_look_at_batch, context, config, huntington, field_cipher)
        return run_in_shadow(context, NAME, database, look)
    with user_facing_failures():
        if config.batch_id == NO_BATCH:
            raise NoBatchNamed(
                "No batch was named, so nothing was sent. Open this run in the launchpad, put the batch's number in "
                "the place of the 0, and launch it."
            )
        if BATCH_TAG not in context.run.tags:
            # A person launched it: so that it is found with the batch's other runs.
            context.instance.add_run_tags(context.run_id, {BATCH_TAG: str(config.batch_id)})
        try:
            report = process_batch(
                database.sessions(),
                huntington.open,
                field_cipher.cipher(),
                transfer_rules(huntington),
                batch_id=config.batch_id,
                holder=context.run_id,
                asked_at=_asked_at(context),
            )
        except TransfersHalted:
            # Not a failure to be more careful after: the batch is sent as soon as the halt is over.
            context.instance.add_run_tags(context.run_id, {HALTED_TAG: "true"})
            raise
        metadata = batch_metadata(database.sessions(), report)
    context.log.info(in_words(report))
    context.add_output_metadata(metadata)
    return {"batch_id": report.batch_id, "status": report.status, "held_by": report.held_by, "counts": report.counts}


process_huntington_batch = single_op_job(
    process_huntington_batch_op,
    SEVERITY,
    legacy_name="Huey PROCESS_HUNTINGTON_BATCH",
    # A run that is ended gives its batch back; without an end, one whose worker was killed would seem to run for ever.
    longest_seconds=LONGEST_SECONDS,
)


@dg.sensor(
    name="huntington_batch_sensor",
    job=process_huntington_batch,
    minimum_interval_seconds=1,
    default_status=automation_status()[1],
    description="Asks for a run of every batch as soon as it is queued, and says why where one has to wait.",
    **owners_and_tags(NAME),
)
def huntington_batch_sensor(
    context: dg.SensorEvaluationContext, database: DatabaseResource
) -> dg.SensorResult | dg.SkipReason:
    """Ask for a run of every batch that is queued and has none on its way; wait for one that is."""
    with user_facing_failures():
        return poll_or_wait(database, BATCH_QUEUED, partial(_look, context.instance, database))


def _look(instance: dg.DagsterInstance, database: DatabaseResource) -> dg.SensorResult | dg.SkipReason:
    with database.sessions()() as session:
        halted = why_halted(session, get_settings().transfers.halted)
        batches = unseen_batches(session, NAME) if in_shadow(NAME) else queued_batches(session)
    if halted is not None:
        return dg.SkipReason(f"{halted} {len(batches)} batches wait in the queue.")
    if not batches:
        return dg.SkipReason("No batch is queued.")
    requests: list[dg.RunRequest] = []
    waits: list[str] = []
    for batch in batches:
        wait = _why_wait(instance, batch)
        if wait is None:
            requests.append(_run_request(instance, batch))
        else:
            waits.append(wait)
        if len(requests) == REQUESTS_A_TICK:
            break
    return dg.SensorResult(run_requests=requests) if requests else dg.SkipReason(" ".join(waits))


def in_words(report: BatchReport) -> str:
    """Return how a batch stands, as one sentence."""
    if report.held_by is not None:
        return f"Batch {report.batch_id} is being processed by run {report.held_by}; this run left it alone."
    counts = ", ".join(f"{count} {status}" for status, count in sorted(report.counts.items()))
    waiting = f" Auto-heal asks the bank about the {report.still_open} still processing." if report.still_open else ""
    return f"Batch {report.batch_id} is {report.status}: {counts}.{waiting}"


def transfer_rules(huntington: HuntingtonResource) -> TransferRules:
    """Return what the environment says of sending."""
    transfers = get_settings().transfers
    return TransferRules(
        funding_account_id=huntington.settings.funding_account_id,
        concurrency=huntington.settings.concurrency,
        lease_seconds=transfers.lease_seconds,
        unknown_grace_seconds=transfers.unknown_grace_seconds,
        # Whatever else may be wrong, nothing is sent in shadow.
        halted_by_environment=transfers.halted or in_shadow(NAME),
    )


def _look_at_batch(
    context: dg.OpExecutionContext,
    config: ProcessBatchConfig,
    huntington: HuntingtonResource,
    field_cipher: FieldCipherResource,
    sessions: Sessions,
    job: str,
) -> list[Decision]:
    return rehearse_batch(
        sessions,
        job,
        cipher=field_cipher.cipher(),
        rules=transfer_rules(huntington),
        batch_id=config.batch_id,
        holder=context.run_id,
        asked_at=_asked_at(context),
    )


def _asked_at(context: dg.OpExecutionContext) -> datetime:
    record = context.instance.get_run_record_by_id(context.run_id)
    return record.create_timestamp if record is not None else datetime.now(UTC)


def _why_wait(instance: dg.DagsterInstance, batch: QueuedBatch) -> str | None:
    """Return why no run is asked for now: one is on its way, or the last ones failed a moment ago."""
    records = instance.get_run_records(dg.RunsFilter(job_name=NAME, tags={BATCH_TAG: str(batch.batch_id)}), limit=20)
    now = datetime.now(UTC)
    for record in records:
        if not record.dagster_run.is_finished and _will_claim(record, batch, now):
            return f"Batch {batch.batch_id}: run {record.dagster_run.run_id} is on its way."
    failures = list(_failures_in_a_row(records, batch))
    if not failures:
        return None
    pause = min(FIRST_PAUSE * 2 ** (len(failures) - 1), LONGEST_PAUSE)
    next_try = datetime.fromtimestamp(failures[0], UTC) + pause
    if now >= next_try:
        return None
    return f"Batch {batch.batch_id}: {len(failures)} runs in a row failed; the next is at {next_try:%H:%M:%S} UTC."


def _will_claim(record: dg.RunRecord, batch: QueuedBatch, now: datetime) -> bool:
    """Return whether a run under way may yet claim the batch, or has died without Dagster's knowing."""
    run = record.dagster_run
    if run.run_id == batch.last_holder:
        return batch.given_back_at is not None and now - batch.given_back_at < TRY_AGAIN_WITHIN
    if run.tags.get(GENERATION_TAG) != str(batch.generation):
        return False
    return run.status is dg.DagsterRunStatus.QUEUED or now - record.update_timestamp < CLAIM_WITHIN


def _failures_in_a_row(records: Sequence[dg.RunRecord], batch: QueuedBatch) -> Iterator[float]:
    """Yield when the last runs ended, newest first, back to one that went well or to when the batch was queued."""
    for record in records:
        run = record.dagster_run
        queued_since = batch.queued_at is not None and record.create_timestamp < batch.queued_at
        if run.status is dg.DagsterRunStatus.SUCCESS or queued_since:
            return
        if record.end_time is not None and HALTED_TAG not in run.tags:
            yield record.end_time


def _run_request(instance: dg.DagsterInstance, batch: QueuedBatch) -> dg.RunRequest:
    """Ask for a run under a key of the batch, its generation, and how often that generation was tried."""
    tags = {BATCH_TAG: str(batch.batch_id), GENERATION_TAG: str(batch.generation)}
    tries = instance.get_runs_count(dg.RunsFilter(job_name=NAME, tags=tags))
    return dg.RunRequest(
        run_key=f"huntington-batch-{batch.batch_id}-generation-{batch.generation}-try-{tries + 1}",
        run_config=dg.RunConfig(ops={NAME: ProcessBatchConfig(batch_id=batch.batch_id)}),
        tags=run_tags(SEVERITY, priority_within=batch.priority) | tags,
    )
