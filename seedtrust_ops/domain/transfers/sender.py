"""Sends the checked transactions of one claimed batch: as many at once as the bank allows, each on record first.

Three roles run side by side on one event loop: attempts are committed ahead of time, workers send what is
committed, and answers are recorded many at once. Claiming, checking and finishing are `processing`'s.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.domain.transfers.account_numbers import FieldCipher, build_order
from seedtrust_ops.domain.transfers.attempts import StartedAttempt, start_attempts
from seedtrust_ops.domain.transfers.idempotency_keys import idempotency_key
from seedtrust_ops.domain.transfers.kill_switch import TransfersHalted, why_halted
from seedtrust_ops.domain.transfers.leases import BatchStatusChanged, Lease, lease_lost, lock_lease, require_processing
from seedtrust_ops.domain.transfers.preflight import NOT_SENT
from seedtrust_ops.domain.transfers.response_recorder import (
    UNAUTHORIZED_SENTENCE,
    AttemptResult,
    record_answers,
    tell_of_limits,
)
from seedtrust_ops.domain.transfers.send_cancellation import Moment, SendCancellation, moment
from seedtrust_ops.domain.transfers.status_transitions import fail_transactions
from seedtrust_ops.errors import TransientError
from seedtrust_ops.ports.bank import (
    Answer,
    Bank,
    BankInquiryFailed,
    BankStatus,
    BankTransfer,
    BankUnauthorized,
    IdempotencyConflict,
    NotSent,
    OutcomeUnknown,
    RateLimited,
    Refused,
    Unauthorized,
)
from seedtrust_ops.tables import DisbursementRequest, HuntingtonTransaction

RECORD_AT_MOST = 200
"""How many answers are recorded in one transaction."""
LINGER_SECONDS = 0.1
"""How long the first answer waits for others to be recorded with, unless all have come: one commit for many."""
LEAST_SILENCE = 8
"""After so many requests in a row (or one for each worker) without any answer, the bank is taken for down."""
LEAST_WAIT_SECONDS = 0.5
"""The least that a 429 is waited out, also where the bank says 0."""
LONG_LIMIT_SECONDS = 300.0
"""When 429s go on for so long, or one asks to wait for so long, people are told."""
FRESH_SECONDS = 5.0
"""A request that has not left so long after it was put on record (a slow bank, a frozen worker) is looked at anew."""


@dataclass(frozen=True)
class PreparedTransfer:
    """A transaction whose attempt is committed; `looked_at` is the moment before halts, batch and request were read."""

    transaction: HuntingtonTransaction
    attempt: StartedAttempt
    looked_at: Moment

    @property
    def is_fresh(self) -> bool:
        """Whether its request may leave without another look."""
        now = moment()
        return max(now.steady - self.looked_at.steady, now.wall - self.looked_at.wall) < FRESH_SECONDS


@dataclass(frozen=True)
class Waiting(NotSent):
    """The request did not leave yet, and its transaction is to be looked at anew before it does."""


TOO_LONG_AGO = Waiting("it had waited for too long")


class BankUnreachable(TransientError):
    """No connection to the bank could be made, so nothing left."""


class BankNotResponding(TransientError):
    """Request after request got no readable answer, nor did the look-ups."""


class BatchSender:
    """Sends transactions of one batch under one lease."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        bank: Bank,
        cipher: FieldCipher,
        funding_account_id: str,
        concurrency: int,
        halted_by_environment: bool,
        lease: Lease,
        stop: SendCancellation,
    ) -> None:
        self._sessions = sessions
        self._bank = bank
        self._cipher = cipher
        self._funding_account_id = funding_account_id
        self._concurrency = concurrency
        self._halted_by_environment = halted_by_environment
        self._lease = lease
        self._stop = stop
        self._resume_at = 0.0
        self._silence = 0
        self._limited_since: float | None = None
        self._prepared: asyncio.Queue[PreparedTransfer | None] = asyncio.Queue(maxsize=2 * concurrency)
        self._answered: asyncio.Queue[AttemptResult | None] = asyncio.Queue()

    async def send(self, transaction_ids: Sequence[int]) -> None:
        """Send the transactions and record every answer; return early when the stop sign is raised.

        Raises:
            LeaseLost: when another worker has the batch; what was answered last is then not recorded.
        """
        async with asyncio.TaskGroup() as roles:
            recorder = roles.create_task(self._record())
            roles.create_task(self._prepare(transaction_ids))
            workers = [roles.create_task(self._work()) for _ in range(self._concurrency)]
            for worker in workers:
                await worker
            await self._answered.put(None)
            await recorder

    async def _prepare(self, transaction_ids: Sequence[int]) -> None:
        for chunk in _slices(transaction_ids, 2 * self._concurrency):
            if self._stop.reason is not None:
                break
            prepared = await self._begin(chunk)
            for one in prepared:
                await self._prepared.put(one)
        for _ in range(self._concurrency):
            await self._prepared.put(None)

    async def _begin(self, transaction_ids: Sequence[int]) -> list[PreparedTransfer]:
        """Put on record which of the transactions are about to be sent; raise the stop sign where none may be."""
        try:
            return await asyncio.to_thread(
                run_in_transaction, self._sessions, lambda session: self._put_on_record(session, transaction_ids)
            )
        except (TransfersHalted, BatchStatusChanged) as reason:
            self._stop.raise_sign(reason)
            return []

    def _put_on_record(self, session: Session, transaction_ids: Sequence[int]) -> list[PreparedTransfer]:
        looked_at = moment()
        lock_lease(session, self._lease)
        require_processing(session, self._lease)
        halted = why_halted(session, self._halted_by_environment)
        if halted is not None:
            raise TransfersHalted(halted)
        rows = session.execute(
            select(HuntingtonTransaction, DisbursementRequest)
            .join(DisbursementRequest, DisbursementRequest.id == HuntingtonTransaction.disbursement_request_id)
            .where(
                in_array(HuntingtonTransaction.id, transaction_ids),
                HuntingtonTransaction.status == "pending",
                # What was moved to another batch since the check waits for that one.
                HuntingtonTransaction.batch_id == self._lease.batch_id,
            )
            .order_by(HuntingtonTransaction.id)
            .with_for_update(of=HuntingtonTransaction)
        ).all()
        changed = {
            transaction.id: f"{NOT_SENT}disbursement request {request.id} was changed after the batch was checked"
            for transaction, request in rows
            if request.status != "approved" or request.amount_cents != transaction.amount_cents
        }
        fail_transactions(session, changed, was="pending")
        sendable = [transaction for transaction, _ in rows if transaction.id not in changed]
        attempts = start_attempts(session, [transaction.id for transaction in sendable])
        session.execute(
            update(HuntingtonTransaction)
            .where(in_array(HuntingtonTransaction.id, attempts))
            .values(status="processing", updated_at=func.clock_timestamp())
        )
        return [PreparedTransfer(transaction, attempts[transaction.id], looked_at) for transaction in sendable]

    async def _work(self) -> None:
        while (one := await self._prepared.get()) is not None:
            # Once only: where the database is so slow that nothing is ever fresh, sending must go on.
            answered = await self._send_one(one) if one.is_fresh else AttemptResult(one.attempt, TOO_LONG_AGO)
            while isinstance(answered.answer, RateLimited | Waiting) and self._stop.reason is None:
                # While it waits the transaction is pending, and afterwards it is looked at anew: by then its request
                # may have been taken back.
                await self._record_now([answered])
                await self._tell_of_a_long_limit()
                await self._wait_for_the_bank()
                again = await self._begin([one.transaction.id]) if self._stop.reason is None else []
                if not again:
                    break
                answered = await self._send_one(again[0])
            else:
                await self._answered.put(answered)

    async def _wait_for_the_bank(self) -> None:
        while self._stop.reason is None and (seconds := self._resume_at - time.monotonic()) > 0:
            await self._stop.wait(seconds)

    async def _tell_of_a_long_limit(self) -> None:
        if self._limited_since is None or self._resume_at - self._limited_since < LONG_LIMIT_SECONDS:
            return
        sentence = (
            f"The bank lets nothing of batch {self._lease.batch_id} through (429): it has asked to wait until "
            f"{self._resume_at - self._limited_since:,.0f} seconds after it first did. Nothing is lost, and what was "
            "not sent is sent by itself once the bank takes it. Ask Huntington about our limit; a lower "
            "HUNTINGTON_CONCURRENCY sends more slowly."
        )
        await asyncio.to_thread(run_in_transaction, self._sessions, lambda session: tell_of_limits(session, sentence))

    async def _send_one(self, one: PreparedTransfer) -> AttemptResult:
        if self._stop.reason is not None:
            return AttemptResult(one.attempt, NotSent("sending was stopped before"))
        if self._resume_at > time.monotonic():
            return AttemptResult(one.attempt, Waiting("the bank had asked to wait"))
        order = build_order(one.transaction, self._cipher, self._funding_account_id)
        answer = await self._bank.create_transfer(order, self._may_leave)
        found = None
        if isinstance(answer, OutcomeUnknown | IdempotencyConflict | Refused):
            # A refusal bears no key either: one of another request must not stand for a transfer that was made.
            found = await self._look_up(one.attempt.transaction_id)
        if isinstance(answer, Refused) and found is not None and found.status is BankStatus.REJECTED:
            # Of a bank that keeps what it refused, the answer says why.
            found = None
        self._heed(answer, found)
        return AttemptResult(one.attempt, answer, found)

    def _may_leave(self) -> bool:
        """Look a last time, for a worker may have been frozen while it connected, and must not wake up and send."""
        if self._stop.lease_has_ended:
            self._stop.raise_sign(lease_lost(self._lease))
        return self._stop.reason is None

    async def _look_up(self, transaction_id: int) -> BankTransfer | None:
        try:
            transfers = await self._bank.find_by_keys([idempotency_key(transaction_id)])
        except BankInquiryFailed:
            return None
        except BankUnauthorized as refusal:
            self._stop.raise_sign(refusal)
            return None
        return transfers[0] if transfers else None

    def _heed(self, answer: Answer, found: BankTransfer | None) -> None:
        """Slow down, stop, or count another request of which nothing came."""
        if isinstance(answer, OutcomeUnknown) and found is None:
            self._silence += 1
            if self._silence >= max(self._concurrency, LEAST_SILENCE):
                self._stop.raise_sign(
                    BankNotResponding(
                        f"Of {self._silence} requests in a row nothing came ({answer.reason}), so sending of batch "
                        f"{self._lease.batch_id} stopped. What was sent is looked up by auto-heal, what was not "
                        "stays pending, and the batch is queued again. See what is wrong at the bank."
                    )
                )
            return
        self._silence = 0
        if not isinstance(answer, RateLimited | NotSent):
            self._limited_since = None
        match answer:
            case RateLimited(retry_after_seconds):
                if self._limited_since is None:
                    self._limited_since = time.monotonic()
                # The limit is on the caller, so every worker waits.
                wait = max(retry_after_seconds, LEAST_WAIT_SECONDS)
                self._resume_at = max(self._resume_at, time.monotonic() + wait)
            case Unauthorized():
                self._stop.raise_sign(BankUnauthorized(UNAUTHORIZED_SENTENCE))
            case NotSent(reason):
                self._stop.raise_sign(
                    BankUnreachable(
                        f"The bank can't be reached: {reason}. Check HUNTINGTON_API_URL and the bank's state. What "
                        f"was not sent of batch {self._lease.batch_id} stays pending, and the batch is queued again."
                    )
                )

    async def _record_now(self, answered: Sequence[AttemptResult]) -> None:
        await asyncio.to_thread(
            run_in_transaction, self._sessions, lambda session: record_answers(session, self._lease, answered)
        )

    async def _record(self) -> None:
        more = True
        while more:
            waiting = await self._answers()
            more = None not in waiting
            answered = [one for one in waiting if one is not None]
            if answered:
                await self._record_now(answered)

    async def _answers(self) -> list[AttemptResult | None]:
        """Return the next answers, as many as come within the time that the first one waits; None ends them."""
        waiting = [await self._answered.get()]
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while waiting[-1] is not None and len(waiting) < RECORD_AT_MOST:
                    waiting.append(await self._answered.get())
        return waiting


def _slices(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
