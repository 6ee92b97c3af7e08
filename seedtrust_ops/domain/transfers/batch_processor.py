"""Processes one batch from claim to finish: the order of the steps, and the handling of errors.

Each step is implemented in another module of this package; the job `process_huntington_batch` calls this one.
See docs/decisions/batch-runs.md.
"""

import asyncio
from dataclasses import dataclass, field, replace
from functools import partial

from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import resolve_alert
from seedtrust_ops.domain.async_runner import run_in_loop
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.row_failures import LOCKED, is_lock_timeout
from seedtrust_ops.domain.transfers.account_numbers import find_account_number_problems
from seedtrust_ops.domain.transfers.attempts import BANK_SUBJECT, open_bank_silent_alert, open_unauthorized_alert
from seedtrust_ops.domain.transfers.batch_lifecycle import (
    AllTransfersFailed,
    AlreadyFinished,
    claim_batch,
    finish_batches,
    hold_batch,
    lock_batches,
    return_to_queue,
)
from seedtrust_ops.domain.transfers.failure_notices import notify_of_failures
from seedtrust_ops.domain.transfers.funding import (
    AwaitsFunding,
    FundingDecision,
    FundingOutcome,
    check_funding,
    record_wait,
)
from seedtrust_ops.domain.transfers.kill_switch import TransfersHalted, get_halt_reason
from seedtrust_ops.domain.transfers.leases import (
    BatchStatusChanged,
    LeaseHolder,
    lock_lease,
    release_lease,
    renew_lease,
)
from seedtrust_ops.domain.transfers.preflight import check_batch
from seedtrust_ops.domain.transfers.sender import BankNotResponding, BankUnreachable, BatchSender
from seedtrust_ops.domain.transfers.sending_context import (
    BatchRun,
    SendCancellation,
    SendingContext,
    read_clocks,
    require_sending_allowed,
)
from seedtrust_ops.domain.transfers.status_inquiry import look_up_open_transactions
from seedtrust_ops.errors import SeedTrustError, TransientError
from seedtrust_ops.ports.bank import BankUnauthorized, OpenBank
from seedtrust_ops.tables import HuntingtonBatch, HuntingtonTransaction

WATCH_INTERVAL_SECONDS = 1.0
"""How often the kill switch and the batch's status are checked while a batch is being processed."""
MAX_REASONS_SHOWN = 5


class RunCanceled(SeedTrustError):
    """A person canceled the run while it was sending; the batch is held."""


class TransactionsPostponed(TransientError):
    """A row of some transactions is locked or cannot be written, so they wait; all others were sent."""


@dataclass(frozen=True)
class BatchReport:
    """The state of a batch when a worker is done with it: transactions and cents by status.

    `awaits` is set if what is pending waits for funds.
    """

    batch_id: int
    status: str
    counts: dict[str, int]
    cents: dict[str, int]
    held_by: str | None = None
    awaits: FundingDecision | None = None

    @property
    def still_open(self) -> int:
        """The number of transactions awaiting bank status, which auto-heal will look up."""
        return self.counts.get("processing", 0)


def process_batch(sessions: Sessions, open_bank: OpenBank, run: BatchRun) -> BatchReport:
    """Send every transaction of a queued batch exactly once, and record the bank's responses.

    Args:
        sessions: the application's database.
        open_bank: opens a connection to the bank for the duration of the work.
        run: the run, and the batch that it processes.

    Returns:
        The state of the batch. If another worker holds it, `held_by` names that worker and nothing was done. If the
        funding account does not cover it, `awaits` says what is missing, and what is pending is back in the queue.

    Raises:
        TransfersHalted, UnknownBatch, BatchNotQueued, WrongFieldKey: before anything was sent.
        AllTransfersFailed: if the batch was processed and is `failed`.
        BankUnauthorized, BankUnreachable, BankNotResponding, BatchStatusChanged: if sending stopped. All responses
            are recorded, unsent transactions are `pending`, and the batch is back in the queue (unless a person
            changed its status).
        TransactionsPostponed: if rows of some transactions are locked. All others were sent, and the batch is back in
            the queue.
        RunCanceled: if a person canceled the run. The same, but the batch is held.
        LeaseLost: if another worker took the batch over.
    """
    with sessions() as session:
        halted = get_halt_reason(session, run.options.halted_by_environment)
    if halted is not None:
        raise TransfersHalted(f"{halted} Batch {run.batch_id} was not changed.")
    claimed_at = read_clocks()
    claim = run_in_transaction(sessions, lambda session: claim_batch(session, run))
    if isinstance(claim, LeaseHolder):
        return _report(sessions, run.batch_id, held_by=claim.name)
    if isinstance(claim, AlreadyFinished):
        return _finished_report(sessions, run.batch_id)
    context = SendingContext(sessions, run, claim, SendCancellation())
    context.cancellation.record_renewal(claimed_at, claim.seconds)
    try:
        run_in_loop(
            lambda: _process_claimed(context, open_bank),
            interrupt=lambda: context.cancellation.cancel(
                SeedTrustError(f"The run was interrupted. Sending of batch {run.batch_id} stopped.")
            ),
        )
    except AwaitsFunding as error:
        awaits = _return_batch(context, error)
        _notify(context)
        return replace(_finished_report(sessions, run.batch_id), awaits=awaits)
    except BaseException as error:
        try:
            _return_batch(context, error)
        except Exception as return_error:  # noqa: BLE001
            error.add_note(
                f"Batch {claim.batch_id} could not be returned to the queue ({type(return_error).__name__}). Its lease "
                f"expires within {claim.seconds:g} seconds; auto-heal will then return the batch."
            )
        _notify_despite(context, error)
        raise
    _finish(context)
    _notify(context)
    return _finished_report(sessions, run.batch_id)


async def _process_claimed(context: SendingContext, open_bank: OpenBank) -> None:
    cancellation = context.cancellation
    try:
        async with asyncio.TaskGroup() as tasks:
            watches = [tasks.create_task(_maintain_lease(context)), tasks.create_task(_watch_for_person(context))]
            async with open_bank() as bank:
                await look_up_open_transactions(
                    context.sessions,
                    bank,
                    unknown_grace_seconds=context.run.options.unknown_grace_seconds,
                    was_canceled_by_person=context.run.was_canceled_by_person,
                    lease=context.lease,
                )
                sender, preflight = BatchSender(context, bank), _Preflight(context)
                # Repeats only after a refusal for lack of funds, or if somebody adds transactions to the batch.
                while cancellation.reason is None and (sendable := await asyncio.to_thread(preflight.run)):
                    funding = await check_funding(context, bank, sendable)
                    if funding.outcome is not FundingOutcome.COVERED:
                        cancellation.cancel(AwaitsFunding(context.run.batch_id, funding))
                        break
                    # After a refusal the first one is sent alone: if the bank still refuses, only that one has failed.
                    await sender.send(sendable[:1] if funding.follows_refusal else sendable)
                    preflight.postponed |= {one: failure.problem for one, failure in sender.postponed.items()}
                if cancellation.reason is None and preflight.postponed:
                    cancellation.cancel(preflight.postponed_error())
            for watch in watches:
                watch.cancel()
    except BaseExceptionGroup as group:
        raise _first_exception(group) from None
    if cancellation.reason is not None:
        raise cancellation.reason


@dataclass
class _Preflight:
    """The checks of one batch, repeated until nothing is left to send but what is `postponed`, with the reasons.

    Once it has waited for a locked row as long as the session allows, it leaves locked rows out.
    """

    context: SendingContext
    postponed: dict[int, str] = field(default_factory=dict)
    skip_locked: bool = False

    def run(self) -> list[int]:
        """Return the transactions that may be sent now."""
        with self.context.sessions() as session:
            problems = find_account_number_problems(session, self.context.run)
        try:
            return run_in_transaction(self.context.sessions, lambda session: self._check(session, problems))
        except OperationalError as error:
            if self.skip_locked or not is_lock_timeout(error):
                raise
        self.skip_locked = True
        return run_in_transaction(self.context.sessions, lambda session: self._check(session, problems))

    def _check(self, session: Session, problems: dict[int, str]) -> list[int]:
        lease = self.context.lease
        sendable = check_batch(session, lease, problems, skip_locked=self.skip_locked)
        if self.skip_locked:
            pending = select(HuntingtonTransaction.id).where(
                HuntingtonTransaction.batch_id == lease.batch_id, HuntingtonTransaction.status == "pending"
            )
            self.postponed = {**dict.fromkeys(set(session.scalars(pending)) - set(sendable), LOCKED), **self.postponed}
        return [one for one in sendable if one not in self.postponed]

    def postponed_error(self) -> TransactionsPostponed:
        """Return the error that names what was postponed."""
        shown = [f"transaction {one} ({self.postponed[one]})" for one in sorted(self.postponed)[:MAX_REASONS_SHOWN]]
        more = f" and {len(self.postponed) - len(shown)} more" if len(self.postponed) > len(shown) else ""
        return TransactionsPostponed(
            f"Not sent of batch {self.context.run.batch_id}: {', '.join(shown)}{more}. They stay pending, everything "
            "else was sent, and the batch is queued again. If this repeats, find out which application holds the locks."
        )


async def _maintain_lease(context: SendingContext) -> None:
    """Renew the lease until the work ends, and check for a reason to stop sending."""
    sessions, lease, cancellation = context.sessions, context.lease, context.cancellation
    interval = min(WATCH_INTERVAL_SECONDS, lease.seconds / 3)
    check_for_stop = partial(require_sending_allowed, context=context)
    while True:
        requested_at = read_clocks()
        await asyncio.to_thread(run_in_transaction, sessions, lambda session: renew_lease(session, lease))
        cancellation.record_renewal(requested_at, lease.seconds)
        if cancellation.reason is None:
            try:
                await asyncio.to_thread(run_in_transaction, sessions, check_for_stop)
            except (TransfersHalted, BatchStatusChanged) as reason:
                cancellation.cancel(reason)
        await asyncio.sleep(interval)


async def _watch_for_person(context: SendingContext) -> None:
    """Stop sending if a person cancels the run; an interruption does not reach a worker that is on another host."""
    while True:
        try:
            is_canceled = await asyncio.to_thread(lambda: context.run.is_canceled_by_person)
        except TransientError:
            # Asked again in a moment, and once more before the batch is returned to the queue.
            is_canceled = False
        if is_canceled:
            context.cancellation.cancel(
                RunCanceled(f"A person canceled this run. Sending of batch {context.run.batch_id} stopped.")
            )
            return
        await asyncio.sleep(WATCH_INTERVAL_SECONDS)


def _first_exception(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first_exception(first) if isinstance(first, BaseExceptionGroup) else first


def _finish(context: SendingContext) -> None:
    """Release the lease and finish the batch, in one transaction."""
    lease = context.lease

    def finish(session: Session) -> None:
        lock_batches(session, [lease.batch_id])
        lock_lease(session, lease)
        release_lease(session, lease)
        finish_batches(session, [lease.batch_id])

    run_in_transaction(context.sessions, finish)


def _describe_error(error: BaseException) -> str:
    """Return the message to store with the batch. A database driver's own message would expose row values."""
    if isinstance(error, SeedTrustError):
        return str(error)
    return f"The run that processed this batch crashed ({type(error).__name__}). See the run's page in Dagster."


def _return_batch(context: SendingContext, error: BaseException) -> FundingDecision | None:
    """Return the batch to the queue after an error, or hold it if a person canceled the run.

    If even that fails, or it is not known whether a person did, the lease expires and auto-heal does it.

    Returns:
        What the batch waits for, if it waits for funds.
    """
    lease = context.lease
    is_canceled = context.run.is_canceled_by_person

    def return_batch(session: Session) -> FundingDecision | None:
        awaits = None
        if is_canceled:
            lock_batches(session, [lease.batch_id])
            lock_lease(session, lease)
            hold_batch(session, lease.batch_id, statuses=("processing",))
        else:
            return_to_queue(session, lease, _describe_error(error))
            if isinstance(error, AwaitsFunding):
                retry_seconds = context.run.options.funding_retry_seconds
                awaits = record_wait(session, lease, error.decision, retry_seconds=retry_seconds)
        release_lease(session, lease)
        if is_canceled or isinstance(error, AwaitsFunding):
            finish_batches(session, [lease.batch_id])
        if isinstance(error, BankUnauthorized):
            open_unauthorized_alert(session)
        if isinstance(error, BankNotResponding | BankUnreachable) or (awaits is not None and awaits.is_bank_silent):
            open_bank_silent_alert(session, str(error))
        elif awaits is not None:
            resolve_alert(session, "bank_silent", BANK_SUBJECT)
        return awaits

    return run_in_transaction(context.sessions, return_batch)


def _notify(context: SendingContext) -> None:
    """Queue the emails about what failed in this run."""
    run_in_transaction(context.sessions, lambda session: notify_of_failures(session, context.run.alert_emails))


def _notify_despite(context: SendingContext, error: BaseException) -> None:
    """Queue the emails about what failed before the error; if that fails too, auto-heal does it."""
    try:
        _notify(context)
    except Exception as notify_error:  # noqa: BLE001
        error.add_note(
            f"The emails about failed transfers could not be queued ({type(notify_error).__name__}). Auto-heal will do "
            "it within a minute."
        )


def _finished_report(sessions: Sessions, batch_id: int) -> BatchReport:
    report = _report(sessions, batch_id)
    if report.status == "failed":
        raise AllTransfersFailed(_explain_all_failed(sessions, batch_id))
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


def _explain_all_failed(sessions: Sessions, batch_id: int) -> str:
    with sessions() as session:
        rows = session.execute(
            select(HuntingtonTransaction.id, HuntingtonTransaction.status, HuntingtonTransaction.failure_reason)
            .where(HuntingtonTransaction.batch_id == batch_id)
            .order_by(HuntingtonTransaction.id)
        ).all()
    if not rows:
        return f"Batch {batch_id} has no transactions, so there was nothing to send. Its status is now 'failed'."
    reasons = "; ".join(f"transaction {row.id}: {row.failure_reason or row.status}" for row in rows[:MAX_REASONS_SHOWN])
    more = f"; and {len(rows) - MAX_REASONS_SHOWN} more" if len(rows) > MAX_REASONS_SHOWN else ""
    return (
        f"All transfers of batch {batch_id} failed ({len(rows)}): {reasons}{more}. Fix the cause, and put the payments "
        "into a new batch."
    )
