"""Processes one batch from claim to end: the order of things, and what happens when they go wrong.

Each step is a function elsewhere in this package; this module is what `process_huntington_batch` calls.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.async_runner import run_in_loop
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.transfers.account_numbers import FieldCipher, account_number_problems
from seedtrust_ops.domain.transfers.batch_claim import AlreadyFinished, claim_batch
from seedtrust_ops.domain.transfers.batch_lifecycle import AllTransfersFailed, finish_batches, return_to_queue
from seedtrust_ops.domain.transfers.kill_switch import TransfersHalted, why_halted
from seedtrust_ops.domain.transfers.leases import (
    BatchStatusChanged,
    Holder,
    Lease,
    lock_lease,
    release_lease,
    renew_lease,
    require_processing,
)
from seedtrust_ops.domain.transfers.preflight import check_batch
from seedtrust_ops.domain.transfers.response_recorder import tell_of_refused_key, tell_of_silence
from seedtrust_ops.domain.transfers.send_cancellation import SendCancellation, moment
from seedtrust_ops.domain.transfers.sender import BankNotResponding, BankUnreachable, BatchSender
from seedtrust_ops.domain.transfers.status_inquiry import ask_about_open_transactions
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.ports.bank import Bank, BankUnauthorized
from seedtrust_ops.tables import HuntingtonBatch, HuntingtonTransaction

OpenBank = Callable[[], AbstractAsyncContextManager[Bank]]

WATCH_SECONDS = 1.0
"""How often the switches and the batch's status are looked at while a batch is processed."""
REASONS_SHOWN = 5


@dataclass(frozen=True)
class TransferRules:
    """What configuration says of sending; times in seconds."""

    funding_account_id: str
    concurrency: int
    lease_seconds: float
    unknown_grace_seconds: float
    halted_by_environment: bool


@dataclass(frozen=True)
class BatchReport:
    """How a batch stands when a worker leaves it: transactions and cents by status."""

    batch_id: int
    status: str
    counts: dict[str, int]
    cents: dict[str, int]
    held_by: str | None = None

    @property
    def still_open(self) -> int:
        """How many transactions wait for the bank's word, for auto-heal to ask."""
        return self.counts.get("processing", 0)


def process_batch(
    sessions: Sessions,
    open_bank: OpenBank,
    cipher: FieldCipher,
    rules: TransferRules,
    *,
    batch_id: int,
    holder: str,
    asked_at: datetime,
) -> BatchReport:
    """Send every transaction of a queued batch exactly once and record what the bank says.

    Args:
        sessions: the application's database.
        open_bank: opens a connection to the bank for the length of the work.
        cipher: decrypts account numbers.
        rules: what configuration says of sending.
        batch_id: which batch.
        holder: the Dagster run that does it.
        asked_at: when that run was asked for (UTC).

    Returns:
        How the batch stands. Where another worker holds it, `held_by` says who and nothing was done.

    Raises:
        TransfersHalted, UnknownBatch, BatchNotQueued, WrongFieldKey: before anything was sent.
        AllTransfersFailed: the batch was processed and `failed`.
        BankUnauthorized, BankUnreachable, BankNotResponding, BatchStatusChanged: sending stopped; what was answered is
            recorded, what was not sent is pending, and the batch is in the queue again (unless taken back).
        LeaseLost: another worker took over.
    """
    with sessions() as session:
        halted = why_halted(session, rules.halted_by_environment)
    if halted is not None:
        raise TransfersHalted(f"{halted} Batch {batch_id} was not touched.")
    claimed_at = moment()
    claim = run_in_transaction(
        sessions,
        lambda session: claim_batch(
            session,
            batch_id,
            holder,
            lease_seconds=rules.lease_seconds,
            asked_at=asked_at,
            quiet_seconds=rules.unknown_grace_seconds,
        ),
    )
    if isinstance(claim, Holder):
        return _report(sessions, batch_id, held_by=claim.name)
    if isinstance(claim, AlreadyFinished):
        return _finished_report(sessions, batch_id)
    stop = SendCancellation()
    stop.lease_renewed(claimed_at, rules.lease_seconds)
    try:
        run_in_loop(
            lambda: _work(sessions, open_bank, cipher, rules, claim, stop),
            interrupt=lambda: stop.raise_sign(
                SeedTrustError("The run was interrupted, so sending stopped; the batch is queued again.")
            ),
        )
    except BaseException as error:
        _leave(sessions, claim, error)
        raise
    _finish(sessions, claim)
    return _finished_report(sessions, batch_id)


async def _work(
    sessions: Sessions,
    open_bank: OpenBank,
    cipher: FieldCipher,
    rules: TransferRules,
    lease: Lease,
    stop: SendCancellation,
) -> None:
    try:
        async with asyncio.TaskGroup() as roles:
            keeper = roles.create_task(_keep(sessions, rules, lease, stop))
            async with open_bank() as bank:
                await ask_about_open_transactions(
                    sessions, bank, unknown_grace_seconds=rules.unknown_grace_seconds, lease=lease
                )
                sender = BatchSender(
                    sessions=sessions,
                    bank=bank,
                    cipher=cipher,
                    funding_account_id=rules.funding_account_id,
                    concurrency=rules.concurrency,
                    halted_by_environment=rules.halted_by_environment,
                    lease=lease,
                    stop=stop,
                )
                # More than once around only where somebody adds transactions to a batch that is under way.
                while stop.reason is None and (
                    checked := await asyncio.to_thread(_check, sessions, lease, cipher, rules.funding_account_id)
                ):
                    await sender.send(checked)
            keeper.cancel()
    except BaseExceptionGroup as group:
        raise _first(group) from None
    if stop.reason is not None:
        raise stop.reason


def _check(sessions: Sessions, lease: Lease, cipher: FieldCipher, funding_account_id: str) -> list[int]:
    with sessions() as session:
        problems = account_number_problems(session, lease.batch_id, cipher, funding_account_id)
    return run_in_transaction(sessions, lambda session: check_batch(session, lease, problems))


async def _keep(sessions: Sessions, rules: TransferRules, lease: Lease, stop: SendCancellation) -> None:
    """Renew the lease for as long as the work goes on, and watch for a reason to stop sending."""
    every = min(WATCH_SECONDS, lease.seconds / 3)

    def watch(session: Session) -> None:
        require_processing(session, lease)
        halted = why_halted(session, rules.halted_by_environment)
        if halted is not None:
            raise TransfersHalted(halted)

    while True:
        asked_at = moment()
        await asyncio.to_thread(run_in_transaction, sessions, lambda session: renew_lease(session, lease))
        stop.lease_renewed(asked_at, lease.seconds)
        if stop.reason is None:
            try:
                await asyncio.to_thread(run_in_transaction, sessions, watch)
            except (TransfersHalted, BatchStatusChanged) as reason:
                stop.raise_sign(reason)
        await asyncio.sleep(every)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _finish(sessions: Sessions, lease: Lease) -> None:
    """Give the lease up and settle the batch, in one transaction."""

    def finish(session: Session) -> None:
        session.execute(select(HuntingtonBatch.id).where(HuntingtonBatch.id == lease.batch_id).with_for_update())
        lock_lease(session, lease)
        release_lease(session, lease)
        finish_batches(session, [lease.batch_id])

    run_in_transaction(sessions, finish)


def _in_words(error: BaseException) -> str:
    """Return what people read beside the batch; a driver's own text would show them the rows that it was about."""
    if isinstance(error, SeedTrustError):
        return str(error)
    return f"The run that processed it broke ({type(error).__name__}); the run's own page in Dagster says where."


def _leave(sessions: Sessions, lease: Lease, error: BaseException) -> None:
    """Give the batch back after trouble; where even that fails, the lease runs out and auto-heal does it."""

    def leave(session: Session) -> None:
        return_to_queue(session, lease, _in_words(error))
        release_lease(session, lease)
        if isinstance(error, BankUnauthorized):
            tell_of_refused_key(session)
        if isinstance(error, BankNotResponding | BankUnreachable):
            tell_of_silence(session, str(error))

    try:
        run_in_transaction(sessions, leave)
    except Exception as trouble:  # noqa: BLE001
        error.add_note(
            f"Batch {lease.batch_id} could not be given back ({type(trouble).__name__}); its lease ends within "
            f"{lease.seconds:g} seconds and auto-heal then takes it up."
        )


def _finished_report(sessions: Sessions, batch_id: int) -> BatchReport:
    report = _report(sessions, batch_id)
    if report.status == "failed":
        raise AllTransfersFailed(_why_nothing(sessions, batch_id))
    return report


def _report(sessions: Sessions, batch_id: int, held_by: str | None = None) -> BatchReport:
    with sessions() as session:
        status = session.scalars(select(HuntingtonBatch.status).where(HuntingtonBatch.id == batch_id)).one()
        rows = session.execute(
            select(HuntingtonTransaction.status, func.count(), func.sum(HuntingtonTransaction.amount_cents))
            .where(HuntingtonTransaction.batch_id == batch_id)
            .group_by(HuntingtonTransaction.status)
        ).all()
    return BatchReport(
        batch_id=batch_id,
        status=status,
        counts={status: count for status, count, _ in rows},
        cents={status: int(cents) for status, _, cents in rows},
        held_by=held_by,
    )


def _why_nothing(sessions: Sessions, batch_id: int) -> str:
    with sessions() as session:
        rows = session.execute(
            select(HuntingtonTransaction.id, HuntingtonTransaction.status, HuntingtonTransaction.failure_reason)
            .where(HuntingtonTransaction.batch_id == batch_id)
            .order_by(HuntingtonTransaction.id)
        ).all()
    if not rows:
        return f"Batch {batch_id} has no transactions, so there was nothing to send. Its status is 'failed'."
    reasons = "; ".join(f"transaction {row.id}: {row.failure_reason or row.status}" for row in rows[:REASONS_SHOWN])
    more = f"; and {len(rows) - REASONS_SHOWN} more" if len(rows) > REASONS_SHOWN else ""
    return (
        f"None of the {len(rows)} transfers of batch {batch_id} went through: {reasons}{more}. Mend what is wrong "
        "and put the payments into a new batch."
    )
