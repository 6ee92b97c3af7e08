"""A simulated worker process: its I/O steps are counted, and at one of them a fault or another event happens.

A crashed process takes no further step: no commit and no request, not even to clean up. A frozen one stands still
until it is resumed. All run in this Python process, each with an engine and a bank client of its own.
"""

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, event

from seedtrust_ops.ports.bank import (
    Bank,
    BankTransfer,
    BankTransfers,
    FundingAccount,
    OpenBank,
    TransferOrder,
    TransferResponse,
    UnreadableTransfer,
)

MAX_FROZEN_SECONDS = 600


class ProcessCrashed(BaseException):
    """The process is gone. Not an Exception, so that no handler in the product can catch it."""


class SimulatedProcess:
    """Counts steps, from any thread, and calls `action` at step `at_step` (from 1; 0: nothing happens)."""

    def __init__(self, at_step: int = 0, action: Callable[["SimulatedProcess"], None] | None = None) -> None:
        self._at_step = at_step
        self._action = action
        self._steps_taken = 0
        self.has_crashed = False
        self.action_ran = False
        self._lock = threading.Lock()
        self.has_frozen = threading.Event()
        self._may_continue = threading.Event()
        self._may_continue.set()

    def take_step(self, *, crash_only: bool = False) -> None:
        """Count a step; raises `ProcessCrashed` if the process has crashed or crashes here.

        With `crash_only` no other action may happen here: the process holds locks that others would wait for, or its
        request has already been sent.
        """
        if self.has_crashed:
            raise ProcessCrashed
        if not crash_only:
            self.wait_while_frozen()
        action = None
        with self._lock:
            self._steps_taken += 1
            if 0 < self._at_step <= self._steps_taken and (not crash_only or self._action is crash):
                action, self._action = self._action, None
        if action is not None:
            self.action_ran = True
            action(self)

    @property
    def can_freeze(self) -> bool:
        """Whether it may freeze at some step."""
        return self._action is freeze

    def wait_while_frozen(self) -> None:
        """Wait until the process is no longer frozen."""
        self._may_continue.wait(MAX_FROZEN_SECONDS)

    def freeze(self) -> None:
        """Stand still until `resume`."""
        self._may_continue.clear()
        self.has_frozen.set()
        self.wait_while_frozen()

    def resume(self) -> None:
        """Continue after a freeze."""
        self._may_continue.set()


def crash(process: SimulatedProcess) -> None:
    """The worker's process is killed."""
    process.has_crashed = True
    raise ProcessCrashed


def freeze(process: SimulatedProcess) -> None:
    """The worker's process is stopped, or its machine swaps."""
    process.freeze()


class ProcessHooks:
    """Connects an engine, and the bank client used with it, to the simulated process that is using them now."""

    def __init__(self, engine: Engine) -> None:
        self.process = SimulatedProcess()
        self._in_transaction: set[int] = set()
        dialect: Any = engine.dialect
        do_begin, do_commit, do_rollback = dialect.do_begin, dialect.do_commit, dialect.do_rollback

        def begin(connection: Any) -> None:
            self.process.wait_while_frozen()
            self._in_transaction.add(id(connection))
            do_begin(connection)

        def commit(connection: Any) -> None:
            self.process.take_step(crash_only=True)
            do_commit(connection)
            self._in_transaction.discard(id(connection))
            self.process.take_step()

        def rollback(connection: Any) -> None:
            do_rollback(connection)
            self._in_transaction.discard(id(connection))

        dialect.do_begin, dialect.do_commit, dialect.do_rollback = begin, commit, rollback

        @event.listens_for(engine, "before_cursor_execute")
        def refuse_crashed_process(*_: object) -> None:
            if self.process.has_crashed:
                raise ProcessCrashed

    def start(self, process: SimulatedProcess) -> None:
        """Start the next process; the previous one has ended, and none of its threads is left."""
        self._in_transaction.clear()
        self.process = process

    @property
    def holds_locks(self) -> bool:
        """Whether a transaction is open."""
        return bool(self._in_transaction)

    def wrap(self, open_bank: OpenBank) -> OpenBank:
        """Return a factory for a bank client whose every request and response is a step of the process."""

        @asynccontextmanager
        async def opened() -> AsyncIterator[Bank]:
            async with open_bank() as bank:
                yield _StepCountingBank(bank, self.process)

        return opened


class _StepCountingBank:
    def __init__(self, bank: Bank, process: SimulatedProcess) -> None:
        self._bank = bank
        self._process = process

    async def create_transfer(self, order: TransferOrder, may_send: Callable[[], bool]) -> TransferResponse:
        self._process.take_step(crash_only=True)
        response = await self._bank.create_transfer(order, may_send)
        self._process.take_step()
        return response

    async def find_by_keys(self, keys: Sequence[str]) -> BankTransfers:
        self._process.take_step()
        found = await self._bank.find_by_keys(keys)
        self._process.take_step()
        return found

    async def find_by_references(self, references: Sequence[str]) -> BankTransfers:
        self._process.take_step()
        found = await self._bank.find_by_references(references)
        self._process.take_step()
        return found

    async def get_transfer(self, bank_transfer_id: str) -> BankTransfer | UnreadableTransfer | None:
        self._process.take_step()
        found = await self._bank.get_transfer(bank_transfer_id)
        self._process.take_step()
        return found

    async def get_account(self, account_id: str) -> FundingAccount:
        # The worker that reads the account holds the lock of all other workers that want to.
        self._process.take_step(crash_only=True)
        account = await self._bank.get_account(account_id)
        self._process.take_step(crash_only=True)
        return account

    async def changed_since(self, moment: datetime) -> AsyncIterator[BankTransfers]:
        async for page in self._bank.changed_since(moment):
            self._process.take_step()
            yield page
            self._process.take_step()
