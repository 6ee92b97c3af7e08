"""Sends the checked transactions of one claimed batch: as many at once as the bank allows, each on record first.

Three roles run side by side on one event loop: attempts are committed ahead of time, workers send what is
committed, and answers are recorded many at once. Claiming, checking and finishing are `processing`'s.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from seedtrust_ops.bank import (
    Answer,
    BankGaveNoAnswer,
    BankTransfer,
    BankUnauthorized,
    KeyReused,
    NotSent,
    OutcomeUnknown,
    RateLimited,
    Unauthorized,
)
from seedtrust_ops.domain.committing import Sessions, commit
from seedtrust_ops.domain.transfers.account_numbers import FieldCipher, build_order
from seedtrust_ops.domain.transfers.answers import UNAUTHORIZED_SENTENCE, Answered, end_of, record_answers
from seedtrust_ops.domain.transfers.attempts import StartedAttempt, end_attempts, start_attempts
from seedtrust_ops.domain.transfers.bank import Bank, idempotency_key
from seedtrust_ops.domain.transfers.halting import TransfersHalted, why_halted
from seedtrust_ops.domain.transfers.leases import BatchTakenBack, Lease, hold_fence, require_processing
from seedtrust_ops.domain.transfers.outcomes import fail_transactions
from seedtrust_ops.errors import OperationsError, PassingTrouble
from seedtrust_ops.tables import DisbursementRequest, HuntingtonTransaction

RECORD_AT_MOST = 200
"""How many answers are recorded in one transaction."""
LINGER_SECONDS = 0.05
"""How long the first answer waits for others to be recorded with: one commit for many, at a cost nobody feels."""
LEAST_SILENCE = 8
"""After so many requests in a row (or one for each worker) without any answer, the bank is taken for down."""


class BankUnreachable(PassingTrouble):
    """No connection to the bank could be made, so nothing left."""


class BankSilent(PassingTrouble):
    """Request after request got no readable answer, nor did the look-ups."""


class StopSign:
    """Says whether sending must stop, and why; the first reason stays."""

    def __init__(self) -> None:
        self.reason: OperationsError | None = None
        self._raised = asyncio.Event()

    def raise_sign(self, reason: OperationsError) -> None:
        """Stop sending for `reason`."""
        self.reason = self.reason or reason
        self._raised.set()

    async def wait(self, seconds: float) -> None:
        """Wait so many seconds, or until sending must stop if that is sooner."""
        try:
            await asyncio.wait_for(self._raised.wait(), seconds)
        except TimeoutError:
            return


@dataclass(frozen=True)
class Prepared:
    """A transaction whose attempt is committed: its request may leave."""

    transaction: HuntingtonTransaction
    attempt: StartedAttempt


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
        stop: StopSign,
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
        self._prepared: asyncio.Queue[Prepared | None] = asyncio.Queue(maxsize=2 * concurrency)
        self._answered: asyncio.Queue[Answered | None] = asyncio.Queue()

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
            try:
                prepared = await asyncio.to_thread(commit, self._sessions, lambda s, ids=chunk: self._begin(s, ids))
            except (TransfersHalted, BatchTakenBack) as reason:
                self._stop.raise_sign(reason)
                break
            for one in prepared:
                await self._prepared.put(one)
        for _ in range(self._concurrency):
            await self._prepared.put(None)

    def _begin(self, session: Session, transaction_ids: Sequence[int]) -> list[Prepared]:
        """Put on record that the transactions are about to be sent; those whose request was taken back fail."""
        hold_fence(session, self._lease)
        require_processing(session, self._lease)
        halted = why_halted(session, self._halted_by_environment)
        if halted is not None:
            raise TransfersHalted(halted)
        rows = session.execute(
            select(HuntingtonTransaction, DisbursementRequest.status)
            .join(DisbursementRequest, DisbursementRequest.id == HuntingtonTransaction.disbursement_request_id)
            .where(HuntingtonTransaction.id.in_(transaction_ids), HuntingtonTransaction.status == "pending")
            .order_by(HuntingtonTransaction.id)
            .with_for_update(of=HuntingtonTransaction)
        ).all()
        fail_transactions(
            session,
            {
                transaction.id: f"not sent: its disbursement request became '{status}' meanwhile"
                for transaction, status in rows
                if status != "approved"
            },
            was="pending",
        )
        sendable = [transaction for transaction, status in rows if status == "approved"]
        attempts = start_attempts(session, [transaction.id for transaction in sendable])
        for transaction in sendable:
            transaction.status = "processing"
            transaction.updated_at = attempts[transaction.id].started_at
        return [Prepared(transaction, attempts[transaction.id]) for transaction in sendable]

    async def _work(self) -> None:
        while (one := await self._prepared.get()) is not None:
            answered = await self._send_one(one)
            while isinstance(answered.answer, RateLimited) and self._stop.reason is None:
                attempt = await asyncio.to_thread(commit, self._sessions, lambda s, a=answered: self._begin_again(s, a))
                answered = await self._send_one(Prepared(one.transaction, attempt))
            await self._answered.put(answered)

    async def _send_one(self, one: Prepared) -> Answered:
        while self._stop.reason is None and (wait := self._resume_at - time.monotonic()) > 0:
            await self._stop.wait(wait)
        if self._stop.reason is not None:
            return Answered(one.attempt, NotSent("sending was stopped before"))
        answer = await self._bank.create_transfer(build_order(one.transaction, self._cipher, self._funding_account_id))
        found = None
        if isinstance(answer, OutcomeUnknown | KeyReused):
            found = await self._look_up(one.attempt.transaction_id)
        self._heed(answer)
        return Answered(one.attempt, answer, found)

    async def _look_up(self, transaction_id: int) -> BankTransfer | None:
        key = idempotency_key(transaction_id)
        try:
            transfers = await self._bank.find_by_keys([key])
        except BankGaveNoAnswer as silence:
            self._silence += 1
            if self._silence >= max(self._concurrency, LEAST_SILENCE):
                self._stop.raise_sign(
                    BankSilent(
                        f"The bank gave no readable answer {self._silence} times in a row ({silence}), so sending "
                        f"of batch {self._lease.batch_id} stopped. What was sent is looked up by auto-heal, what "
                        "was not stays pending, and the batch is queued again."
                    )
                )
            return None
        except BankUnauthorized as refusal:
            self._stop.raise_sign(refusal)
            return None
        self._silence = 0
        return transfers[0] if transfers else None

    def _heed(self, answer: Answer) -> None:
        match answer:
            case RateLimited(retry_after_seconds):
                # The limit is on the caller, so every worker waits.
                self._resume_at = max(self._resume_at, time.monotonic() + retry_after_seconds)
            case Unauthorized():
                self._stop.raise_sign(BankUnauthorized(UNAUTHORIZED_SENTENCE))
            case NotSent(reason):
                self._stop.raise_sign(
                    BankUnreachable(
                        f"The bank can't be reached: {reason}. Check HUNTINGTON_API_URL and the bank's state. What "
                        f"was not sent of batch {self._lease.batch_id} stays pending, and the batch is queued again."
                    )
                )
            case OutcomeUnknown():
                return
        self._silence = 0

    def _begin_again(self, session: Session, answered: Answered) -> StartedAttempt:
        """Put on record that the bank asked to wait, and that the same request is about to leave again."""
        hold_fence(session, self._lease)
        end_attempts(session, [end_of(answered)])
        transaction_id = answered.attempt.transaction_id
        return start_attempts(session, [transaction_id])[transaction_id]

    async def _record(self) -> None:
        more = True
        while more:
            first = await self._answered.get()
            await asyncio.sleep(LINGER_SECONDS if first is not None else 0)
            waiting = [first]
            while len(waiting) < RECORD_AT_MOST and not self._answered.empty():
                waiting.append(self._answered.get_nowait())
            more = None not in waiting
            answered = [one for one in waiting if one is not None]
            if answered:
                await asyncio.to_thread(
                    commit, self._sessions, lambda s, news=answered: record_answers(s, self._lease, news)
                )


def _slices(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
