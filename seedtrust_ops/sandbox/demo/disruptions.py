"""Disruptions while batches are being sent: a halt, a kill, a rejection, a late return, an unknown transfer.

They act from outside, on processes, on the kill switch, at the bank and with the commands that people run. None of them
edits a batch's rows.
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
from seedtrust_ops.domain.transfers.batch_lifecycle import FINISHED_STATUSES
from seedtrust_ops.formatting import format_dollars
from seedtrust_ops.jobs.process_huntington_batch import HELD_BY_RUN
from seedtrust_ops.jobs.process_huntington_batch import NAME as PROCESS_BATCH
from seedtrust_ops.sandbox.demo.environment import DemoEnvironment
from seedtrust_ops.sandbox.demo.scenarios import Scenario
from seedtrust_ops.sandbox.seed.batches import queue_batches
from seedtrust_ops.tables import Alert, BatchLease, DisbursementRequest, HuntingtonBatch, HuntingtonTransaction

Steps = Generator[str | None, None, None]
"""Yields None while waiting, and a message after each action; it ends when the disruption is over."""


class Disruption(Protocol):
    """A disruption of one scenario; each `next` of the result does what can be done without waiting."""

    def __call__(self, env: DemoEnvironment, scenario: Scenario) -> Steps: ...


def count_at_bank(env: DemoEnvironment, scenario: Scenario) -> int:
    """Return how many of the scenario's transfers the bank has."""
    references = {str(transaction_id) for transaction_id in scenario.batch.transaction_ids}
    return sum(transfer["reference"] in references for transfer in env.bank.ledger()["transfers"])


def batch_status(env: DemoEnvironment, scenario: Scenario) -> str:
    """Return the status of the scenario's batch."""
    with env.sessions() as session:
        return session.scalars(
            select(HuntingtonBatch.status).where(HuntingtonBatch.id == scenario.batch.batch_id)
        ).one()


def is_partly_sent(env: DemoEnvironment, scenario: Scenario) -> bool:
    """Return whether the bank has some, but not all, of the scenario's transfers."""
    return 0 < count_at_bank(env, scenario) < len(scenario.batch.transaction_ids)


def halt_mid_batch(env: DemoEnvironment, scenario: Scenario, others: Sequence[Scenario]) -> Steps:
    """Queue the scenario's batch, halt all transfers while it is being sent, queue the `others`, and resume."""
    batch_id = scenario.batch.batch_id
    with env.sessions.begin() as session:
        queue_batches(session, [batch_id])
    yield f"Queued batch {batch_id}, which will be halted"
    while not is_partly_sent(env, scenario):
        if batch_status(env, scenario) in FINISHED_STATUSES:
            yield f"Batch {batch_id} finished before it could be halted"
            break
        yield None
    with env.sessions.begin() as session:
        kill_switch.halt(session, "The demo checks that sending stops.", set_by="the demo")
    yield f"Halted all transfers; {count_at_bank(env, scenario)} transfers of batch {batch_id} are at the bank"
    while batch_status(env, scenario) == "processing":
        yield None
    stopped_at = count_at_bank(env, scenario)
    with env.sessions.begin() as session:
        queue_batches(session, [other.batch.batch_id for other in others])
    yield (
        f"Sending stopped at {stopped_at} of {len(scenario.batch.transaction_ids)}; batch {batch_id} is queued again, "
        f"together with {len(others)} more batches"
    )
    with env.sessions.begin() as session:
        kill_switch.resume(session)
    yield "Resumed transfers"


def kill_sender(env: DemoEnvironment, scenario: Scenario) -> Steps:
    """Kill the process that sends the scenario's batch, with SIGKILL, while the batch is partly sent."""
    batch_id = scenario.batch.batch_id
    while not (is_partly_sent(env, scenario) and (pid := sender_pid(env, batch_id))):
        if batch_status(env, scenario) in FINISHED_STATUSES:
            yield f"Batch {batch_id} finished before its process could be killed"
            return
        yield None
    os.kill(pid, signal.SIGKILL)
    yield f"Killed process {pid}; {count_at_bank(env, scenario)} transfers of batch {batch_id} are at the bank"


def sender_pid(env: DemoEnvironment, batch_id: int) -> int | None:
    """Return the pid of the run that holds the batch's lease; None if there is none among our worker's processes."""
    with env.sessions() as session:
        run_id = session.scalar(
            select(BatchLease.holder).where(BatchLease.batch_id == batch_id, BatchLease.token.is_not(None))
        )
    if run_id is None:
        return None
    worker_pids = {process.pid for process in psutil.Process(env.worker.pid).children(recursive=True)}
    for record in env.instance.get_records_for_run(run_id).records:
        event = record.event_log_entry.dagster_event
        if event is not None and event.is_engine_event:
            pid = event.engine_event_data.metadata.get("pid")
            if pid is not None and int(str(pid.value)) in worker_pids:
                return int(str(pid.value))
    return None


def launch_second_run(env: DemoEnvironment, scenario: Scenario) -> Steps:
    """Launch a second run for the scenario's batch while the first one is sending it."""
    batch_id = scenario.batch.batch_id
    while batch_status(env, scenario) in ("draft", "queued"):
        yield None
    config = env.folder / "second_run.yaml"
    config.write_text(f"ops: {{{PROCESS_BATCH}: {{config: {{batch_id: {batch_id}}}}}}}\n")
    log = env.folder / "second_run.log"
    with log.open("w") as output:
        second_run = subprocess.Popen(  # noqa: S603
            [
                *(sys.executable, "-m", "dagster", "job", "execute", "-m", "seedtrust_ops.definitions"),
                *("-j", PROCESS_BATCH, "-c", str(config)),
            ],
            env=env.variables,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    yield f"Launched a second run for batch {batch_id} by hand"
    try:
        while second_run.poll() is None:
            yield None
    finally:
        if second_run.poll() is None:
            second_run.kill()
            second_run.wait()
    yield second_run_result(log, batch_id, second_run.returncode)


def second_run_result(log: Path, batch_id: int, exit_code: int) -> str:
    """Return what a second run for a batch did, from its log and exit code."""
    text = log.read_text(errors="replace")
    if exit_code:
        return f"The second run for batch {batch_id} FAILED: {text[-300:]}"
    if HELD_BY_RUN in text:
        return f"The second run saw that the first run holds batch {batch_id}, and ended successfully without sending"
    return f"The second run saw that batch {batch_id} was already finished, and ended successfully without sending"


def reject_first_transfer(env: DemoEnvironment, scenario: Scenario) -> Steps:
    """Make the bank reject the scenario's first transfer before it settles."""
    reference = str(scenario.batch.transaction_ids[0])
    while reference not in {transfer["reference"] for transfer in env.bank.ledger()["transfers"]}:
        yield None
    env.bank.reject_reference(reference, "The receiving bank is closed.")
    yield f"The bank rejected transaction {reference} of batch {scenario.batch.batch_id} before it settled"


def return_old_ach(env: DemoEnvironment) -> Steps:
    """Make the bank return an ACH that completed weeks ago and was booked as paid."""
    with env.sessions() as session:
        transaction_id = oldest_paid_ach(session)
    env.bank.return_reference(str(transaction_id), "R03")
    yield f"The bank returned transaction {transaction_id}, which completed weeks ago (return code R03)"
    while _transaction_status(env, transaction_id) != "returned":
        yield None
    yield f"Auto-heal read the bank's feed and reversed transaction {transaction_id}; its request is approved again"


def explain_unknown_transfer(env: DemoEnvironment) -> Steps:
    """Let a wire leave the funding account that nobody at SeedTrust ordered, and explain it as a person would."""
    unknown = env.bank.add_unknown_transfer()
    yield (
        f"A wire of {format_dollars(unknown['amount_cents'])} that SeedTrust did not send left the funding account "
        f"(bank transfer {unknown['id']})"
    )
    subject = f"bank transfer {unknown['id']}"
    while not _is_alert_open(env, "unknown_transfer", subject):
        yield None
    yield "Auto-heal found it in the bank's feed and opened the alert unknown_transfer"
    env.run_command(
        *("transfers", "explain", unknown["id"], "--reason", "Huntington: another customer's wire, will be reversed")
    )
    while _is_alert_open(env, "unknown_transfer", subject):
        yield None
    yield f"A person asked Huntington and ran `seedtrust-ops transfers explain {unknown['id']}`: the alert is resolved"


def empty_funding_account(env: DemoEnvironment, scenario: Scenario, others: Sequence[Scenario]) -> Steps:
    """Empty the funding account once the `others` are sent, queue the scenario's batch, and fund the account later."""
    batch_id = scenario.batch.batch_id
    while any(batch_status(env, other) not in FINISHED_STATUSES for other in others):
        yield None
    (account,) = env.bank.totals()["accounts"]
    env.bank.set_available_cents(0)
    with env.sessions.begin() as session:
        queue_batches(session, [batch_id])
    yield f"The funding account is empty; queued batch {batch_id}"
    while not _is_alert_open(env, "insufficient_funding", f"funding account {account['id']}"):
        yield None
    yield f"Nothing of batch {batch_id} was sent: it waits for funds, and the alert insufficient_funding is open"
    env.bank.set_available_cents(account["available_cents"])
    yield "A person funded the account"
    while batch_status(env, scenario) not in FINISHED_STATUSES:
        yield None
    yield f"Batch {batch_id} was sent by itself"


def oldest_paid_ach(session: Session) -> int:
    """Return the id of the oldest completed ACH whose request is paid."""
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


def _is_alert_open(env: DemoEnvironment, rule: str, subject: str) -> bool:
    is_open = select(Alert.id).where(Alert.rule == rule, Alert.subject == subject, Alert.resolved_at.is_(None))
    with env.sessions() as session:
        return session.scalar(is_open) is not None


def _transaction_status(env: DemoEnvironment, transaction_id: int) -> str:
    with env.sessions() as session:
        return session.scalars(
            select(HuntingtonTransaction.status).where(HuntingtonTransaction.id == transaction_id)
        ).one()
