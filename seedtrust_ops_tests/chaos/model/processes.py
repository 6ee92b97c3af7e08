"""One life of a worker's process: its I/O steps are counted, and at one of them something befalls it.

A worker that died can do no step more: neither a commit nor a request, not even to tidy up. A frozen one stands
where it is until it is thawed. It is done in this process, by an engine and a bank of the worker's own.
"""

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, event

from seedtrust_ops.ports.bank import Answer, Bank, BankTransfer, TransferOrder

FROZEN_AT_MOST_SECONDS = 600
OpenBank = Callable[[], AbstractAsyncContextManager[Bank]]


class Died(BaseException):
    """The process is gone. No handler of the product's may stop it, so it is no Exception."""


class Life:
    """Counts steps, from whichever thread, and calls `befalls` at step `at` (from 1; 0: nothing befalls it)."""

    def __init__(self, at: int = 0, befalls: Callable[["Life"], None] | None = None) -> None:
        self._at = at
        self._befalls = befalls
        self._taken = 0
        self.is_dead = False
        self.has_been_struck = False
        self._lock = threading.Lock()
        self.has_frozen = threading.Event()
        self._may_go_on = threading.Event()
        self._may_go_on.set()

    def step(self, *, only_death: bool = False) -> None:
        """Take a step; raises `Died` where this life has ended or ends here.

        `only_death` says that nothing else may befall it there: it holds locks that others would wait for, or its
        request is on its way already.
        """
        if self.is_dead:
            raise Died
        if not only_death:
            self.stand_while_frozen()
        befalls = None
        with self._lock:
            self._taken += 1
            if 0 < self._at <= self._taken and (not only_death or self._befalls is die):
                befalls, self._befalls = self._befalls, None
        if befalls is not None:
            self.has_been_struck = True
            befalls(self)

    @property
    def can_freeze(self) -> bool:
        """Whether it may come to a stand somewhere in the middle."""
        return self._befalls is freeze

    def stand_while_frozen(self) -> None:
        """Stand still for as long as this life is frozen."""
        self._may_go_on.wait(FROZEN_AT_MOST_SECONDS)

    def freeze(self) -> None:
        """Stand still until `thaw`."""
        self._may_go_on.clear()
        self.has_frozen.set()
        self.stand_while_frozen()

    def thaw(self) -> None:
        """Go on."""
        self._may_go_on.set()


def die(life: Life) -> None:
    """The worker's process is killed."""
    life.is_dead = True
    raise Died


def freeze(life: Life) -> None:
    """The worker's process is stopped, or its machine swaps."""
    life.freeze()


class Incarnations:
    """Ties an engine, and the bank that is opened beside it, to the life that uses them at the time."""

    def __init__(self, engine: Engine) -> None:
        self.life = Life()
        self._in_transaction: set[int] = set()
        dialect: Any = engine.dialect
        do_begin, do_commit, do_rollback = dialect.do_begin, dialect.do_commit, dialect.do_rollback

        def begin(connection: Any) -> None:
            self.life.stand_while_frozen()
            self._in_transaction.add(id(connection))
            do_begin(connection)

        def commit(connection: Any) -> None:
            self.life.step(only_death=True)
            do_commit(connection)
            self._in_transaction.discard(id(connection))
            self.life.step()

        def rollback(connection: Any) -> None:
            do_rollback(connection)
            self._in_transaction.discard(id(connection))

        dialect.do_begin, dialect.do_commit, dialect.do_rollback = begin, commit, rollback

        @event.listens_for(engine, "before_cursor_execute")
        def refuse_the_dead(*_: object) -> None:
            if self.life.is_dead:
                raise Died

    def begin(self, life: Life) -> None:
        """Start the next life; the one before has ended, and none of its threads is left."""
        self._in_transaction.clear()
        self.life = life

    @property
    def holds_locks(self) -> bool:
        """Whether a transaction is open."""
        return bool(self._in_transaction)

    def opens(self, open_bank: OpenBank) -> OpenBank:
        """Return a bank whose every question and answer is a step of the life."""

        @asynccontextmanager
        async def opened() -> AsyncIterator[Bank]:
            async with open_bank() as bank:
                yield _SteppingBank(bank, self.life)

        return opened


class _SteppingBank:
    def __init__(self, bank: Bank, life: Life) -> None:
        self._bank = bank
        self._life = life

    async def create_transfer(self, order: TransferOrder, may_leave: Callable[[], bool]) -> Answer:
        self._life.step(only_death=True)
        answer = await self._bank.create_transfer(order, may_leave)
        self._life.step()
        return answer

    async def find_by_keys(self, keys: Sequence[str]) -> list[BankTransfer]:
        self._life.step()
        found = await self._bank.find_by_keys(keys)
        self._life.step()
        return found

    async def find_by_references(self, references: Sequence[str]) -> list[BankTransfer]:
        self._life.step()
        found = await self._bank.find_by_references(references)
        self._life.step()
        return found

    async def changed_since(self, moment: datetime) -> AsyncIterator[list[BankTransfer]]:
        async for page in self._bank.changed_since(moment):
            self._life.step()
            yield page
            self._life.step()
