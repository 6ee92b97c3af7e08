"""Those who interfere while batches are being sent: each waits for its moment, acts once, and says what it did.

They act as the world does: on processes, on the switch, at the bank. None writes a batch's rows.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Protocol

import psutil
from sqlalchemy import select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.transfers import kill_switch
from seedtrust_ops.domain.transfers.batch_lifecycle import FINISHED
from seedtrust_ops.jobs.process_huntington_batch import NAME as SENDING
from seedtrust_ops.sandbox.demo.environment import Stage
from seedtrust_ops.sandbox.demo.scenarios import Scene
from seedtrust_ops.sandbox.seed.batches import queue_batches
from seedtrust_ops.tables import BatchLease, DisbursementRequest, HuntingtonBatch, HuntingtonTransaction

Acts = Generator[str | None, None, None]
"""Yields None while it waits and a sentence when it has done something; it ends when all is done."""


class Stagehand(Protocol):
    """Somebody who interferes."""

    def __call__(self, stage: Stage) -> Acts: ...


def sent_of(stage: Stage, scene: Scene) -> int:
    """Return how many of the scene's transfers the bank has."""
    wanted = {str(one) for one in scene.batch.transaction_ids}
    return sum(transfer["reference"] in wanted for transfer in stage.bank.ledger()["transfers"])


def status_of(stage: Stage, scene: Scene) -> str:
    """Return the status of the scene's batch."""
    with stage.sessions() as session:
        return session.scalars(select(HuntingtonBatch.status).where(HuntingtonBatch.id == scene.batch.batch_id)).one()


def is_under_way(stage: Stage, scene: Scene) -> bool:
    """Return whether the bank has some of the scene's transfers, and not all."""
    return 0 < sent_of(stage, scene) < len(scene.batch.transaction_ids)


def halt_in_the_middle(stage: Stage, scene: Scene, then: Sequence[Scene]) -> Acts:
    """Queue the scene, halt all transfers in its middle, see that nothing more leaves; queue the rest and resume."""
    with stage.sessions.begin() as session:
        queue_batches(session, [scene.batch.batch_id])
    yield f"Queued batch {scene.batch.batch_id}, for the halt"
    while not is_under_way(stage, scene):
        if status_of(stage, scene) in FINISHED:
            yield f"Batch {scene.batch.batch_id} was done before anybody could halt it"
            break
        yield None
    with stage.sessions.begin() as session:
        kill_switch.halt(session, "the demo looks whether sending stops", set_by="the demo")
    yield f"Halted all transfers with {sent_of(stage, scene)} of batch {scene.batch.batch_id} at the bank"
    while status_of(stage, scene) == "processing":
        yield None
    stopped_at = sent_of(stage, scene)
    with stage.sessions.begin() as session:
        queue_batches(session, [other.batch.batch_id for other in then])
    yield (
        f"Sending stopped at {stopped_at} of {len(scene.batch.transaction_ids)}; batch {scene.batch.batch_id} is back "
        f"in the queue, and {len(then)} more batches are queued"
    )
    with stage.sessions.begin() as session:
        kill_switch.resume(session)
    yield "Transfers resumed"


def kill_in_the_middle(stage: Stage, scene: Scene) -> Acts:
    """Kill the process that sends the scene's batch, with SIGKILL, in its middle."""
    while not (is_under_way(stage, scene) and (pid := pid_of_sender(stage, scene.batch.batch_id))):
        if status_of(stage, scene) in FINISHED:
            yield f"Batch {scene.batch.batch_id} was done before anybody could kill its sender"
            return
        yield None
    os.kill(pid, signal.SIGKILL)
    yield f"Killed process {pid} with {sent_of(stage, scene)} of batch {scene.batch.batch_id} at the bank"


def pid_of_sender(stage: Stage, batch_id: int) -> int | None:
    """Return the process of the run that holds the batch, None where there is none of our worker's."""
    with stage.sessions() as session:
        run_id = session.scalar(
            select(BatchLease.holder).where(BatchLease.batch_id == batch_id, BatchLease.token.is_not(None))
        )
    if run_id is None:
        return None
    ours = {process.pid for process in psutil.Process(stage.worker.pid).children(recursive=True)}
    for record in stage.instance.get_records_for_run(run_id).records:
        event = record.event_log_entry.dagster_event
        if event is not None and event.is_engine_event:
            said = event.engine_event_data.metadata.get("pid")
            if said is not None and int(str(said.value)) in ours:
                return int(str(said.value))
    return None


def run_by_hand(stage: Stage, scene: Scene) -> Acts:
    """Launch a second run on the scene's batch while the first is at it."""
    while status_of(stage, scene) in ("draft", "queued"):
        yield None
    config = stage.folder / "second_run.yaml"
    config.write_text(f"ops: {{{SENDING}: {{config: {{batch_id: {scene.batch.batch_id}}}}}}}\n")
    log = stage.folder / "second_run.log"
    with log.open("w") as output:
        second = subprocess.Popen(  # noqa: S603
            [
                *(sys.executable, "-m", "dagster", "job", "execute", "-m", "seedtrust_ops.definitions"),
                *("-j", SENDING, "-c", str(config)),
            ],
            env=stage.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    yield f"Launched a second run on batch {scene.batch.batch_id} by hand"
    try:
        while second.poll() is None:
            yield None
    finally:
        if second.poll() is None:
            second.kill()
            second.wait()
    yield _what_second_run_said(log, scene, second.returncode)


def _what_second_run_said(log: Path, scene: Scene, code: int) -> str:
    text = log.read_text(errors="replace")
    if code:
        return f"The second run on batch {scene.batch.batch_id} FAILED: {text[-300:]}"
    if "is being processed by run" in text:
        return f"The second run found batch {scene.batch.batch_id} in the first one's hands and ended well"
    return f"The second run found batch {scene.batch.batch_id} done and ended well"


def reject_one(stage: Stage, scene: Scene) -> Acts:
    """Let the bank stop the scene's first transfer before it settles."""
    reference = str(scene.batch.transaction_ids[0])
    while reference not in {transfer["reference"] for transfer in stage.bank.ledger()["transfers"]}:
        yield None
    stage.bank.reject_reference(reference, "The receiving bank is closed.")
    yield f"The bank stopped transaction {reference} of batch {scene.batch.batch_id} before it settled"


def return_an_old_one(stage: Stage) -> Acts:
    """Let an ACH of weeks ago, long booked as paid, come back."""
    with stage.sessions() as session:
        transaction_id = old_ach(session)
    stage.bank.return_reference(str(transaction_id), "R03")
    yield f"The bank returned transaction {transaction_id}, which was completed weeks ago (R03)"
    while _status_of_transaction(stage, transaction_id) != "returned":
        yield None
    yield f"Healing read the bank's feed and reversed transaction {transaction_id}; its request is approved again"


def old_ach(session: Session) -> int:
    """Return the oldest completed ACH whose request is paid."""
    return session.scalars(
        select(HuntingtonTransaction.id)
        .join(DisbursementRequest, DisbursementRequest.id == HuntingtonTransaction.disbursement_request_id)
        .where(
            HuntingtonTransaction.method == "ach",
            HuntingtonTransaction.status == "completed",
            DisbursementRequest.status == "paid",
        )
        .order_by(HuntingtonTransaction.id)
        .limit(1)
    ).one()


def _status_of_transaction(stage: Stage, transaction_id: int) -> str:
    with stage.sessions() as session:
        return session.scalars(
            select(HuntingtonTransaction.status).where(HuntingtonTransaction.id == transaction_id)
        ).one()
