"""Sends the checked transactions of one claimed batch concurrently; each attempt is committed before it is sent.

Three kinds of tasks share one event loop: one commits attempts ahead of time, workers send committed attempts, and one
records responses, many per commit. Claim, preflight and finish are in `batch_processor`.
See docs/decisions/unknown-outcomes.md.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from sqlalchemy import func, or_, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.row_failures import RowByRow, RowFailure
from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.domain.transfers.account_numbers import (
    STORED_TRANSFER,
    InvalidAccountNumber,
    StoredTransfer,
    build_order,
)
from seedtrust_ops.domain.transfers.attempts import (
    UNAUTHORIZED_MESSAGE,
    AttemptResult,
    StartedAttempt,
    idempotency_key,
    open_rate_limit_alert,
    record_responses,
    start_attempts,
)
from seedtrust_ops.domain.transfers.evidence import (
    as_first_sent,
    is_in_doubt,
    may_be_at_the_bank,
    record_sends,
)
from seedtrust_ops.domain.transfers.funding import FUNDING_REFUSALS, AwaitsFunding, refused
from seedtrust_ops.domain.transfers.kill_switch import TransfersHalted
from seedtrust_ops.domain.transfers.leases import BatchStatusChanged, lease_lost_error, lock_lease
from seedtrust_ops.domain.transfers.sending_context import (
    ClockReading,
    SendingContext,
    read_clocks,
    require_sending_allowed,
)
from seedtrust_ops.domain.transfers.status_transitions import NOT_SENT_PREFIX, fail_transactions
from seedtrust_ops.domain.transfers.unreadable_transfers import require_own_references
from seedtrust_ops.errors import SeedTrustError, TransientError
from seedtrust_ops.ports.bank import (
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
    TransferOrder,
    TransferResponse,
    Unauthorized,
)
from seedtrust_ops.tables import DisbursementRequest, HuntingtonTransaction, TransferEvidence

Result = TypeVar("Result")

MAX_RESPONSES_PER_COMMIT = 200
"""Maximum responses recorded in one transaction."""
LINGER_SECONDS = 0.1
"""How long the first response waits for others, so that one commit records many."""
MIN_UNANSWERED_IN_A_ROW = 8
"""After this many consecutive requests (or one per worker) without any response, the bank is considered down."""
MIN_RATE_LIMIT_WAIT_SECONDS = 0.5
"""The minimum wait after a 429, even if the bank asks for 0 seconds."""
RATE_LIMIT_ALERT_SECONDS = 300.0
"""An alert is opened after 429s for this long, or if one asks for a wait this long."""
MAX_PREPARED_AGE_SECONDS = 5.0
"""A request not sent this long after its attempt was recorded (slow bank, frozen worker) is checked again."""


@dataclass(frozen=True)
class PreparedTransfer:
    """An order with a committed attempt; `read_at` is just before kill switch, batch and request were read."""

    order: TransferOrder
    attempt: StartedAttempt
    read_at: ClockReading

    @property
    def is_fresh(self) -> bool:
        """Whether its request may be sent without another check."""
        now = read_clocks()
        return max(now.monotonic - self.read_at.monotonic, now.wall - self.read_at.wall) < MAX_PREPARED_AGE_SECONDS


@dataclass(frozen=True)
class Postponed(NotSent):
    """The request was not sent yet; its transaction must be checked again first."""


STALE = Postponed("it had waited too long since the last check")


class BankUnreachable(TransientError):
    """No connection to the bank could be made, so nothing was sent."""


class BankNotResponding(TransientError):
    """Consecutive requests got no readable response, and the lookups found nothing."""


class BatchSender:
    """Sends transactions of one claimed batch under its lease."""

    def __init__(self, context: SendingContext, bank: Bank) -> None:
        self._context = context
        self._sessions = context.sessions
        self._lease = context.lease
        self._cancellation = context.cancellation
        self._concurrency = context.run.options.concurrency
        self._bank = bank
        self._resume_at = 0.0
        self._funds_not_in_doubt = asyncio.Event()
        self._funds_not_in_doubt.set()
        self._unanswered_in_a_row = 0
        self._limited_since: float | None = None
        self._prepared: asyncio.Queue[PreparedTransfer | None] = asyncio.Queue(maxsize=2 * self._concurrency)
        self._results: asyncio.Queue[AttemptResult | None] = asyncio.Queue()
        self._unsent: dict[int, StartedAttempt] = {}
        """Attempts of which certainly no byte was sent, by transaction id."""
        self._unrecorded: dict[int, AttemptResult] = {}
        """Results that could not be recorded, because of a row of that transaction."""
        fence = partial(lock_lease, lease=self._lease)
        self._starts, self._records = RowByRow(self._sessions, fence), RowByRow(self._sessions, fence)

    @property
    def postponed(self) -> dict[int, RowFailure]:
        """Why transactions stay pending for a later run, by transaction id."""
        return self._starts.failures

    async def send(self, transaction_ids: Sequence[int]) -> None:
        """Send the transactions and record every response; return early if sending is canceled.

        Raises:
            LeaseLost: if another worker has the batch; the latest responses are then not recorded.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                recorder = tasks.create_task(self._record_results())
                tasks.create_task(self._prepare(transaction_ids))
                workers = [tasks.create_task(self._run_worker()) for _ in range(self._concurrency)]
                for worker in workers:
                    await worker
                await self._results.put(None)
                await recorder
        except BaseException as error:
            await self._record_rest(error)
            raise
        await self._record_again()

    async def _prepare(self, transaction_ids: Sequence[int]) -> None:
        for chunk in _chunks(transaction_ids, 2 * self._concurrency):
            if self._cancellation.reason is not None:
                break
            prepared = await self._start_chunk(chunk)
            for one in prepared:
                await self._prepared.put(one)
        for _ in range(self._concurrency):
            await self._prepared.put(None)

    async def _start_chunk(self, transaction_ids: Sequence[int]) -> list[PreparedTransfer]:
        """Commit the attempts of the transactions about to be sent; cancel sending if none may be sent."""
        try:
            return await _in_thread(lambda: self._start(transaction_ids))
        except (TransfersHalted, BatchStatusChanged) as reason:
            self._cancellation.cancel(reason)
            return []

    def _start(self, transaction_ids: Sequence[int]) -> list[PreparedTransfer]:
        prepared = [one for part in self._starts.write(transaction_ids, self._record_attempts) for one in part]
        self._unsent |= {one.attempt.transaction_id: one.attempt for one in prepared}
        refused = {
            one: f"{NOT_SENT_PREFIX}{failure.problem}"
            for one, failure in self._starts.failures.items()
            if one in transaction_ids and not failure.may_pass
        }
        if refused:
            failing = RowByRow(self._sessions, self._starts.fence)
            failing.write(list(refused), lambda session, ids: self._fail(session, {one: refused[one] for one in ids}))
            for one in refused.keys() - failing.failures.keys():
                del self._starts.failures[one]
        return prepared

    def _fail(self, session: Session, reasons: Mapping[int, str]) -> None:
        lock_lease(session, self._lease)
        fail_transactions(session, reasons, from_status="pending")

    def _record_attempts(self, session: Session, transaction_ids: Sequence[int]) -> list[PreparedTransfer]:
        read_at = read_clocks()
        lock_lease(session, self._lease)
        require_sending_allowed(session, self._context)
        rows = session.execute(
            select(*STORED_TRANSFER)
            .add_columns(
                DisbursementRequest.id,
                DisbursementRequest.status,
                DisbursementRequest.amount_cents,
                as_first_sent("disbursement_request_id"),
            )
            .join(DisbursementRequest, DisbursementRequest.id == HuntingtonTransaction.disbursement_request_id)
            .outerjoin(TransferEvidence, may_be_at_the_bank())
            .where(
                in_array(HuntingtonTransaction.id, transaction_ids),
                HuntingtonTransaction.status == "pending",
                # A transaction that was moved to another batch since preflight is sent with that batch.
                HuntingtonTransaction.batch_id == self._lease.batch_id,
                # Somebody has set it back since preflight.
                or_(TransferEvidence.transaction_id.is_(None), ~is_in_doubt()),
            )
            .order_by(HuntingtonTransaction.id)
            .with_for_update(of=HuntingtonTransaction)
        ).all()
        orders: dict[int, TransferOrder] = {}
        changed: dict[int, str] = {}
        for *columns, request_id, request_status, request_amount_cents, sent_for in rows:
            transaction = StoredTransfer(*columns)
            if (request_status, request_amount_cents, request_id) != ("approved", transaction.amount_cents, sent_for):
                changed[transaction.id] = (
                    f"{NOT_SENT_PREFIX}disbursement request {request_id} was changed after preflight"
                )
                continue
            try:
                orders[transaction.id] = build_order(transaction, self._context.run)
            except InvalidAccountNumber as error:
                changed[transaction.id] = f"{NOT_SENT_PREFIX}{error} (it was changed after preflight)"
        fail_transactions(session, changed, from_status="pending")
        record_sends(session, orders)
        attempts = start_attempts(session, orders)
        session.execute(
            update(HuntingtonTransaction)
            .where(in_array(HuntingtonTransaction.id, attempts))
            .values(status="processing", updated_at=func.clock_timestamp())
        )
        return [PreparedTransfer(order, attempts[transaction_id], read_at) for transaction_id, order in orders.items()]

    async def _run_worker(self) -> None:
        while (one := await self._prepared.get()) is not None:
            # Only once: if the database is so slow that no attempt is ever fresh, sending must continue.
            result = await self._try(one) if one.is_fresh else self._result(one.attempt, STALE)
            while isinstance(result.response, RateLimited | Postponed) and self._cancellation.reason is None:
                # The transaction is pending while it waits and is checked again afterwards: by then its request may
                # have been denied.
                await self._record_now([result])
                await self._alert_if_long_rate_limit()
                await self._wait_for_rate_limit()
                if self._cancellation.reason is not None:
                    break
                again = await self._start_chunk([one.attempt.transaction_id])
                if not again:
                    break
                result = await self._try(again[0])
            else:
                await self._results.put(result)

    async def _wait_for_rate_limit(self) -> None:
        while self._cancellation.reason is None and (seconds := self._resume_at - time.monotonic()) > 0:
            await self._cancellation.wait(seconds)

    async def _alert_if_long_rate_limit(self) -> None:
        if self._limited_since is None or self._resume_at - self._limited_since < RATE_LIMIT_ALERT_SECONDS:
            return
        message = (
            f"Huntington is rate limiting batch {self._lease.batch_id} (429): it asked us to wait until "
            f"{self._resume_at - self._limited_since:,.0f} seconds after its first 429. Nothing is lost; unsent "
            "transactions will be sent once the bank accepts them. Ask Huntington about our rate limit, or lower "
            "HUNTINGTON_CONCURRENCY to send more slowly."
        )
        await asyncio.to_thread(
            run_in_transaction, self._sessions, lambda session: open_rate_limit_alert(session, message)
        )

    def _result(
        self, attempt: StartedAttempt, response: TransferResponse, found: BankTransfer | None = None
    ) -> AttemptResult:
        self._unsent.pop(attempt.transaction_id, None)
        return AttemptResult(attempt, response, found)

    async def _try(self, one: PreparedTransfer) -> AttemptResult:
        try:
            return await self._send_one(one)
        except Exception as error:
            error.add_note(f"This happened while transaction {one.attempt.transaction_id} was being sent.")
            raise

    async def _send_one(self, one: PreparedTransfer) -> AttemptResult:
        await self._funds_not_in_doubt.wait()
        if self._cancellation.reason is not None:
            return self._result(one.attempt, NotSent("sending was stopped first"))
        if self._resume_at > time.monotonic():
            return self._result(one.attempt, Postponed("the bank asked us to wait"))
        response = await self._bank.create_transfer(one.order, lambda: self._may_send(one.attempt))
        if not (isinstance(response, Refused) and response.code in FUNDING_REFUSALS):
            return await self._confirm(one.attempt, response)
        # While the refusal is being confirmed, nothing else leaves: it would be refused too, and its key be spent.
        self._funds_not_in_doubt.clear()
        try:
            return await self._confirm(one.attempt, response)
        finally:
            self._funds_not_in_doubt.set()

    async def _confirm(self, attempt: StartedAttempt, response: TransferResponse) -> AttemptResult:
        """Look up what the response leaves open, and react to it."""
        found = None
        if isinstance(response, OutcomeUnknown | IdempotencyConflict | Refused):
            try:
                found = await self._look_up(attempt.transaction_id)
            except BankInquiryFailed:
                if isinstance(response, Refused):
                    # A refusal carries no key: one that belongs to another request must not hide a transfer that was
                    # made, so it is believed only if a lookup finds none.
                    response = OutcomeUnknown(f"refused ({response.code}), and a lookup of the key got no response")
        if isinstance(response, Refused) and found is not None and found.status is BankStatus.REJECTED:
            # If the bank keeps refused transfers, the refusal has the reason.
            found = None
        self._react_to(attempt.transaction_id, response, found)
        return self._result(attempt, response, found)

    def _may_send(self, attempt: StartedAttempt) -> bool:
        """Check once more: a worker that was frozen while it connected must not send after its lease has expired."""
        if self._cancellation.lease_has_ended:
            self._cancellation.cancel(lease_lost_error(self._lease))
        if self._cancellation.reason is not None:
            return False
        # From here on it counts as sent.
        self._unsent.pop(attempt.transaction_id, None)
        return True

    async def _look_up(self, transaction_id: int) -> BankTransfer | None:
        """Return the bank's transfer under the transaction's key, or None; raises `BankInquiryFailed`."""
        try:
            transfers = require_own_references(await self._bank.find_by_keys([idempotency_key(transaction_id)]))
        except BankUnauthorized as error:
            self._cancellation.cancel(error)
            raise BankInquiryFailed(str(error)) from None
        if transfers.unreadable:
            raise BankInquiryFailed(f"The bank's transfer {transfers.unreadable[0].bank_transfer_id} cannot be read.")
        return transfers.readable[0] if transfers.readable else None

    def _react_to(self, transaction_id: int, response: TransferResponse, found: BankTransfer | None) -> None:
        """Slow down, cancel sending, or count a request without a response."""
        if isinstance(response, OutcomeUnknown) and found is None:
            self._unanswered_in_a_row += 1
            if self._unanswered_in_a_row >= max(self._concurrency, MIN_UNANSWERED_IN_A_ROW):
                self._cancellation.cancel(
                    BankNotResponding(
                        f"The last {self._unanswered_in_a_row} requests to Huntington got no response "
                        f"({response.reason}). Stopped sending batch {self._lease.batch_id}; auto-heal will check what "
                        "was sent, unsent transactions stay pending, and the batch is queued again. Check the bank's "
                        "status."
                    )
                )
            return
        self._unanswered_in_a_row = 0
        if not isinstance(response, RateLimited | NotSent):
            self._limited_since = None
        match response:
            case RateLimited(retry_after_seconds):
                if self._limited_since is None:
                    self._limited_since = time.monotonic()
                # The limit applies to us as the caller, so every worker waits.
                wait = max(retry_after_seconds, MIN_RATE_LIMIT_WAIT_SECONDS)
                self._resume_at = max(self._resume_at, time.monotonic() + wait)
            case Refused(code) if code in FUNDING_REFUSALS and found is None:
                # Every further one would be refused too, and a refused transfer is never sent again.
                account_id = self._context.run.options.funding_account_id
                self._cancellation.cancel(
                    AwaitsFunding(self._lease.batch_id, refused(account_id, transaction_id, code))
                )
            case Unauthorized():
                self._cancellation.cancel(BankUnauthorized(UNAUTHORIZED_MESSAGE))
            case NotSent(reason):
                self._cancellation.cancel(
                    BankUnreachable(
                        f"Huntington can't be reached: {reason}. Check HUNTINGTON_API_URL and the bank's status. "
                        f"Unsent transactions of batch {self._lease.batch_id} stay pending, and the batch is queued "
                        "again."
                    )
                )

    async def _record_now(self, results: Sequence[AttemptResult]) -> None:
        by_id = {one.attempt.transaction_id: one for one in results}

        def record(session: Session, transaction_ids: Sequence[int]) -> None:
            record_responses(session, self._lease, [by_id[one] for one in transaction_ids])

        await _in_thread(lambda: self._records.write(sorted(by_id), record))
        for one, result in by_id.items():
            if one in self._records.failures:
                self._unrecorded[one] = result
            else:
                self._unrecorded.pop(one, None)

    async def _record_again(self) -> None:
        """Record once more what failed because of a row; auto-heal asks about what fails again."""
        if self._unrecorded:
            await self._record_now(list(self._unrecorded.values()))

    async def _record_rest(self, error: BaseException) -> None:
        """Record what is known when sending ends with an error, so that what was not sent is pending at once."""
        waiting = [self._results.get_nowait() for _ in range(self._results.qsize())]
        results = [one for one in waiting if one is not None]
        results += [
            AttemptResult(attempt, NotSent("sending stopped before it was sent")) for attempt in self._unsent.values()
        ]
        if not results:
            return
        try:
            await self._record_now(results)
        except (SeedTrustError, DBAPIError) as record_error:
            error.add_note(
                f"The results of {len(results)} transactions could not be recorded ({type(record_error).__name__}); "
                "auto-heal will look them up."
            )

    async def _record_results(self) -> None:
        more = True
        while more:
            waiting = await self._next_results()
            more = None not in waiting
            results = [one for one in waiting if one is not None]
            if results:
                await self._record_now(results)

    async def _next_results(self) -> list[AttemptResult | None]:
        """Return the next results that arrive within LINGER_SECONDS of the first; None marks the end."""
        waiting = [await self._results.get()]
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while waiting[-1] is not None and len(waiting) < MAX_RESPONSES_PER_COMMIT:
                    waiting.append(await self._results.get())
        return waiting


async def _in_thread(work: Callable[[], Result]) -> Result:
    """Run `work` in a thread; if this task is canceled, wait for the thread first, because it cannot be stopped."""
    thread = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait([thread])
        thread.exception()
        raise


def _chunks(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
