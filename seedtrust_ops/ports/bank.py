"""The bank port: the transfer order that we send, every possible response, and the `Bank` protocol.

The wire format is in `resources/huntington_schema`; what we do with each response is in `domain/transfers/`.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from seedtrust_ops.errors import SeedTrustError, TransientError

LOOKUP_PAGE_SIZE = 100
"""Maximum keys or references that the bank accepts in one lookup (bank_api.yaml, find_transfers)."""


class AccountNumber:
    """A payee's account number; only `reveal` exposes more than the last four digits."""

    __slots__ = ("_digits",)

    def __init__(self, digits: str) -> None:
        self._digits = digits

    def reveal(self) -> str:
        """Return all digits. Only for building the request to the bank."""
        return self._digits

    def __repr__(self) -> str:
        return f"<account number ending {self._digits[-4:]}>" if len(self._digits) > 4 else "<account number>"

    __str__ = __repr__


@dataclass(frozen=True)
class TransferOrder:
    """One transfer to request from the bank; `amount_cents` in US cents."""

    idempotency_key: str
    method: str
    amount_cents: int
    funding_account_id: str
    payee_name: str
    routing_number: str
    account_number: AccountNumber
    account_type: str
    reference: str


class BankStatus(StrEnum):
    """The bank's status of a transfer (bank_api.yaml, Transfer.status)."""

    ACCEPTED = "accepted"
    COMPLETED = "completed"
    REJECTED = "rejected"
    RETURNED = "returned"


@dataclass(frozen=True)
class BankTransfer:
    """A transfer as the bank reports it; `method` is 'ach' or 'wire', and both times are the bank's clock, UTC."""

    id: str
    idempotency_key: str
    status: BankStatus
    method: str
    amount_cents: int
    reference: str
    created_at: datetime
    updated_at: datetime
    return_code: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class UnreadableTransfer:
    """A transfer that the bank reports and that cannot be read; whatever of it names it, and a sentence why.

    It is unknown, never absent: the bank has something under its key or reference.
    """

    bank_transfer_id: str | None
    idempotency_key: str | None
    reference: str | None
    problem: str


@dataclass(frozen=True)
class BankTransfers:
    """The transfers of a lookup or of a page of the feed. One that cannot be read hides none of the others."""

    readable: list[BankTransfer] = field(default_factory=list)
    unreadable: list[UnreadableTransfer] = field(default_factory=list)


@dataclass(frozen=True)
class FundingAccount:
    """The account that transfers are paid from, as the bank reports it; a transfer is debited when it is accepted."""

    id: str
    available_cents: int


@dataclass(frozen=True)
class Originated:
    """The bank has the transfer, from this request or an earlier one with the same key."""

    transfer: BankTransfer


@dataclass(frozen=True)
class Refused:
    """The bank refused the transfer (422). Final: no money moved or will move."""

    code: str
    message: str


@dataclass(frozen=True)
class IdempotencyConflict:
    """The bank already has this idempotency key with a different body (409)."""


@dataclass(frozen=True)
class Unauthorized:
    """The bank does not accept our API key (401). No money moved; the transfer itself is not at fault."""


@dataclass(frozen=True)
class RateLimited:
    """The bank is rate limiting us (429). No money moved; retry after `retry_after_seconds`."""

    retry_after_seconds: float


@dataclass(frozen=True)
class NotSent:
    """No byte of the request was sent: there was no connection, or sending was stopped first."""

    reason: str


@dataclass(frozen=True)
class OutcomeUnknown:
    """No readable response: the transfer may or may not exist. Only a lookup can determine that."""

    reason: str


TransferResponse = Originated | Refused | IdempotencyConflict | Unauthorized | RateLimited | NotSent | OutcomeUnknown


class BankInquiryFailed(TransientError):
    """A lookup at the bank got no readable response."""


class FundingAccountUnreadable(BankInquiryFailed):
    """The bank answered, and its answer does not say what the funding account has."""


class BankUnauthorized(SeedTrustError):
    """The bank does not accept our API key (401)."""


class Bank(Protocol):
    """What the domain needs from a bank. Lookups raise `BankInquiryFailed` or `BankUnauthorized`."""

    async def create_transfer(self, order: TransferOrder, may_send: Callable[[], bool]) -> TransferResponse:
        """Request one transfer, once. Every outcome is returned as a response; none is raised.

        `may_send` is called immediately before the request is written. If it returns False, nothing is sent.
        """
        ...

    async def find_by_keys(self, keys: Sequence[str]) -> BankTransfers:
        """Return the transfers with these idempotency keys, at most 100 keys per call.

        Each unreadable one has one of these keys. A key that neither list has is one that the bank does not know.
        """
        ...

    async def find_by_references(self, references: Sequence[str]) -> BankTransfers:
        """Return the transfers with these references, at most 100 references per call.

        Each unreadable one has one of these references.
        """
        ...

    async def get_transfer(self, bank_transfer_id: str) -> BankTransfer | UnreadableTransfer | None:
        """Return the transfer with this id of the bank, or None if the bank knows none."""
        ...

    def changed_since(self, moment: datetime) -> AsyncIterator[BankTransfers]:
        """Yield pages of the transfers that changed since `moment` (UTC), oldest change first."""
        ...

    async def get_account(self, account_id: str) -> FundingAccount:
        """Return the funding account with this id; also raises `FundingAccountUnreadable`."""
        ...


OpenBank = Callable[[], AbstractAsyncContextManager[Bank]]
"""Opens a connection to the bank for the duration of some work."""
