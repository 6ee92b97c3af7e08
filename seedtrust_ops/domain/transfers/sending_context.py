"""What stays fixed while one batch is processed, and the reasons to stop sending it.

`BatchRun` is a run's task; once the run has claimed its batch, all steps share one `SendingContext`. The steps are in
`batch_processor`.
See docs/decisions/leases-and-fencing.md.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from sqlalchemy.orm import Session

from seedtrust_ops.domain.db_transaction import Sessions
from seedtrust_ops.domain.transfers.kill_switch import TransfersHalted, get_halt_reason
from seedtrust_ops.domain.transfers.leases import Lease, WasCanceledByPerson, require_processing
from seedtrust_ops.errors import SeedTrustError


class FieldCipher(Protocol):
    """Decrypts the platform's encrypted columns."""

    def decrypt(self, token: str) -> str:
        """Return the plain text of `token`, or raise `UnreadableToken`."""
        ...

    def can_decrypt(self, token: str) -> bool:
        """Return whether one of the configured keys decrypts `token`, without returning the plain text."""
        ...


@dataclass(frozen=True)
class TransferOptions:
    """The configuration for sending; times in seconds."""

    funding_account_id: str
    concurrency: int
    lease_seconds: float
    unknown_grace_seconds: float
    halted_by_environment: bool
    funding_retry_seconds: float = 300
    """How long a batch that the funding account does not cover waits before it is checked again."""


@dataclass(frozen=True)
class BatchRun:
    """One run's task: the batch, the Dagster run that is to hold it, and when that run was requested (UTC)."""

    batch_id: int
    holder: str
    requested_at: datetime
    cipher: FieldCipher
    options: TransferOptions
    was_canceled_by_person: WasCanceledByPerson
    alert_emails: Sequence[str] = ()
    """Who is emailed about a failed transfer if no user who is responsible for it is active."""

    @property
    def is_canceled_by_person(self) -> bool:
        """Whether a person has canceled this run; raises if that cannot be known now."""
        return self.was_canceled_by_person(self.holder)


class ClockReading(NamedTuple):
    """The current time of both process clocks, in seconds.

    The monotonic clock stops while the machine is suspended, and the wall clock can be set back: neither alone is a
    safe measure of elapsed time.
    """

    monotonic: float
    wall: float


def read_clocks() -> ClockReading:
    """Return the current time of both clocks."""
    return ClockReading(time.monotonic(), time.time())


class SendCancellation:
    """A request to stop sending, shared by the worker's tasks; the first reason is kept.

    It is in-process state only; what other processes must know is in the database.
    """

    def __init__(self) -> None:
        self.reason: SeedTrustError | None = None
        self._canceled = asyncio.Event()
        self._lease_ends_at = ClockReading(float("-inf"), float("-inf"))

    def cancel(self, reason: SeedTrustError) -> None:
        """Stop sending because of `reason`; the first reason is kept."""
        self.reason = self.reason or reason
        self._canceled.set()

    async def wait(self, seconds: float) -> None:
        """Wait `seconds`, or until sending is canceled if that is sooner."""
        try:
            await asyncio.wait_for(self._canceled.wait(), seconds)
        except TimeoutError:
            return

    def record_renewal(self, requested_at: ClockReading, seconds: float) -> None:
        """Record that the lease was renewed for `seconds`; `requested_at` was read just before the renewal."""
        self._lease_ends_at = ClockReading(requested_at.monotonic + seconds, requested_at.wall + seconds)

    @property
    def lease_has_ended(self) -> bool:
        """Whether the lease may belong to another worker by now, for example because this process was frozen."""
        now = read_clocks()
        return now.monotonic >= self._lease_ends_at.monotonic or now.wall >= self._lease_ends_at.wall


@dataclass(frozen=True)
class SendingContext:
    """A claimed batch: the database, the run's task, the lease that the claim gave it, and its cancellation."""

    sessions: Sessions
    run: BatchRun
    lease: Lease
    cancellation: SendCancellation


def require_sending_allowed(session: Session, context: SendingContext) -> None:
    """Verify that nobody has changed the batch's status or halted transfers.

    Raises:
        BatchStatusChanged, TransfersHalted: if somebody has; the message says what to do.
    """
    require_processing(session, context.lease)
    halted = get_halt_reason(session, context.run.options.halted_by_environment)
    if halted is not None:
        raise TransfersHalted(halted)
