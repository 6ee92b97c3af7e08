"""What the domain needs of a bank, and the key under which the bank knows a transaction of ours."""

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Protocol

from seedtrust_ops.bank import Answer, BankTransfer, TransferOrder

KEY_PREFIX = "seedtrust-transaction-"
_LONGEST_ID = 18


def idempotency_key(transaction_id: int) -> str:
    """Return the transaction's key at the bank: a function of its id alone, so no crash can lose it."""
    return f"{KEY_PREFIX}{transaction_id}"


def transaction_id_of(key: str) -> int | None:
    """Return the transaction that an idempotency key of ours stands for, None for anybody else's key."""
    digits = key.removeprefix(KEY_PREFIX)
    if not digits.isascii() or not digits.isdigit() or len(digits) > _LONGEST_ID:
        return None
    transaction_id = int(digits)
    return transaction_id if idempotency_key(transaction_id) == key else None


class Bank(Protocol):
    """What the domain needs of a bank. Look-ups raise `BankGaveNoAnswer` or `BankUnauthorized`."""

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
