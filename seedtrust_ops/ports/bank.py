"""The words in which the domain and a bank's client speak: an order to pay, and the answers there can be.

Neither the wire format (the client's, in `resources/`) nor what follows from an answer (`domain/transfers/`)
is here.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from seedtrust_ops.errors import SeedTrustError, TransientError

LOOK_UP_PAGE = 100
"""How many keys or references the bank takes in one look-up (bank_api.yaml, find_transfers)."""


class AccountNumber:
    """A payee's account number; only `reveal` shows more than its last four digits."""

    __slots__ = ("_digits",)

    def __init__(self, digits: str) -> None:
        self._digits = digits

    def reveal(self) -> str:
        """Return all digits, for the request to the bank and nothing else."""
        return self._digits

    def __repr__(self) -> str:
        return f"<account number ending {self._digits[-4:]}>" if len(self._digits) > 4 else "<account number>"

    __str__ = __repr__


@dataclass(frozen=True)
class TransferOrder:
    """One transfer as the bank is asked for it; `amount_cents` in US cents."""

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
    """What the bank says of a transfer (bank_api.yaml, Transfer.status)."""

    ACCEPTED = "accepted"
    COMPLETED = "completed"
    REJECTED = "rejected"
    RETURNED = "returned"


@dataclass(frozen=True)
class BankTransfer:
    """A transfer as the bank has it; `updated_at` by the bank's clock, UTC."""

    id: str
    idempotency_key: str
    status: BankStatus
    amount_cents: int
    reference: str
    updated_at: datetime
    return_code: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Originated:
    """The bank has the transfer, newly or since an earlier request with this key."""

    transfer: BankTransfer


@dataclass(frozen=True)
class Refused:
    """Final: nothing moved and nothing will."""

    code: str
    message: str


@dataclass(frozen=True)
class IdempotencyConflict:
    """The bank has this key with another body."""


@dataclass(frozen=True)
class Unauthorized:
    """The bank does not know our API key; nothing moved, and it is not the transfer's fault."""


@dataclass(frozen=True)
class RateLimited:
    """Nothing moved; ask again after so many seconds."""

    retry_after_seconds: float


@dataclass(frozen=True)
class NotSent:
    """The request never left: no connection was made, or sending was stopped before."""

    reason: str


@dataclass(frozen=True)
class OutcomeUnknown:
    """No readable answer: the transfer may or may not exist, and only a look-up can tell."""

    reason: str


Answer = Originated | Refused | IdempotencyConflict | Unauthorized | RateLimited | NotSent | OutcomeUnknown


class BankInquiryFailed(TransientError):
    """A question to the bank got no readable answer."""


class BankUnauthorized(SeedTrustError):
    """The bank refuses our API key."""


class Bank(Protocol):
    """What the domain needs of a bank. Look-ups raise `BankInquiryFailed` or `BankUnauthorized`."""

    async def create_transfer(self, order: TransferOrder, may_leave: Callable[[], bool]) -> Answer:
        """Ask for one transfer once; every way it can end is an answer, none an exception.

        `may_leave` is asked when nothing but handing over the request is left to do; where it says no, none leaves.
        """
        ...

    async def find_by_keys(self, keys: Sequence[str]) -> list[BankTransfer]:
        """Return the transfers that bear these idempotency keys, at most 100 keys a call."""
        ...

    async def find_by_references(self, references: Sequence[str]) -> list[BankTransfer]:
        """Return the transfers that bear these references, at most 100 references a call."""
        ...

    def changed_since(self, moment: datetime) -> AsyncIterator[list[BankTransfer]]:
        """Yield pages of the transfers that changed since `moment` (UTC), oldest change first."""
        ...
