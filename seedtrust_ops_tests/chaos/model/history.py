"""What can happen in the model's world at any time, also in the middle of a worker's life: people, clocks, the bank.

When and in what order is the state machine's; each returns whether it found anything to happen to.
"""

from collections.abc import Callable
from typing import Any

import httpx

from seedtrust_ops_tests.chaos.model.environment import World
from seedtrust_ops_tests.chaos.model.payments import Payment, Payments

HAPPENINGS = (
    "another worker works",
    "a healing",
    "a halt",
    "a resumption",
    "a batch is held",
    "a batch is queued again",
    "a request is denied",
    "a request gets another amount",
    "a request is approved again",
    "a payment is added",
    "time passes",
    "the database's clock jumps forward",
    "the database's clock jumps back",
    "the bank's clock jumps forward",
    "the bank settles",
    "the bank returns",
    "the bank rejects",
    "the bank forgets a key",
    "the bank recovers",
)


class History:
    """One world, and the batches and transactions that were made in it so far."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.payments = Payments(world.company)
        self.batches: list[int] = []
        self.transactions: list[int] = []

    def batch(self, place: int) -> int:
        """One of the batches."""
        return self.batches[place % len(self.batches)]

    def transaction(self, place: int) -> int:
        """One of the transactions."""
        return self.transactions[place % len(self.transactions)]

    def batch_to_process(self, place: int, wanted: list[Payment]) -> int:
        """A queued batch, made of `wanted` where there is none: what befalls a worker should find it at work."""
        queued = self.world.sql("select id from huntington_batches where status = 'queued' order by id")
        if not queued:
            self.make_batch(wanted, "queued")
            return self.batches[-1]
        return int(queued[place % len(queued)][0])

    def happenings(self, place: int, seconds: float, wanted: Payment) -> dict[str, Callable[[], Any]]:
        """What can happen at any time, also in the middle of a worker's life."""
        return {
            "another worker works": lambda: self.world.process(self.batch(place)),
            "a healing": self.world.heal,
            "a halt": self._halt,
            "a resumption": self._resume,
            "a batch is held": lambda: self._hold(self.batch(place)),
            "a batch is queued again": lambda: self._queue_again(self.batch(place)),
            "a request is denied": lambda: self._take_back(place, "status = 'denied'"),
            "a request gets another amount": lambda: self._take_back(place, "amount_cents = amount_cents + 1"),
            "a request is approved again": lambda: self._approve_again(place),
            "a payment is added": lambda: self._add(self.batch(place), wanted),
            "time passes": lambda: self.world.clocks.pass_time(seconds),
            "the database's clock jumps forward": lambda: self.world.clocks.jump_database(seconds),
            "the database's clock jumps back": lambda: self.world.clocks.jump_database(-seconds),
            "the bank's clock jumps forward": lambda: self.world.clocks.jump_bank(seconds),
            "the bank settles": self.world.bank.settle,
            "the bank returns": lambda: self._at_the_bank(self.world.bank.return_reference, place, "R03"),
            "the bank rejects": lambda: self._at_the_bank(self.world.bank.reject_reference, place, "account is frozen"),
            "the bank forgets a key": lambda: self._forget(place),
            "the bank recovers": self.world.bank.clear_faults,
        }

    def make_batch(self, wanted: list[Payment], status: str) -> None:
        """Make a batch of these payments."""
        batch_id = self.payments.new_batch(wanted, self.world.now(), status=status)
        self.batches.append(batch_id)
        self._know_transactions(batch_id)
        if status != "queued":
            self._forbid_pending(batch_id, f"batch {batch_id} is '{status}'")

    def _know_transactions(self, batch_id: int) -> None:
        rows = self.world.sql("select id from huntington_transactions where batch_id = :id order by id", id=batch_id)
        self.transactions += [row[0] for row in rows if row[0] not in self.transactions]

    def _forbid_pending(self, batch_id: int, why: str) -> None:
        pending = f"select id from huntington_transactions where batch_id = {batch_id} and status = 'pending'"
        self.world.forbid(f"batch {batch_id}", why, pending)

    def _add(self, batch_id: int, wanted: Payment) -> bool:
        is_open = "select 1 from huntington_batches where id = :id and status in ('queued', 'processing')"
        if not self.world.sql(is_open, id=batch_id):
            return False
        self.payments.add(batch_id, [wanted], self.world.now())
        self._know_transactions(batch_id)
        return True

    def _hold(self, batch_id: int) -> bool:
        hold = (
            "update huntington_batches set status = 'held'"
            " where id = :id and status in ('queued', 'processing') returning id"
        )
        held = self.world.sql(hold, id=batch_id)
        if held:
            self._forbid_pending(batch_id, f"batch {batch_id} is held")
        return bool(held)

    def _queue_again(self, batch_id: int) -> bool:
        self.world.allow(f"batch {batch_id}")
        queue = (
            "update huntington_batches set status = 'queued', queued_at = clock_timestamp()"
            " where id = :id and status <> 'queued' returning id"
        )
        return bool(self.world.sql(queue, id=batch_id))

    def _take_back(self, place: int, change: str) -> bool:
        if not self.payments.requests:
            return False
        request_id = self.payments.requests[place % len(self.payments.requests)]
        take_back = f"update disbursement_requests set {change} where id = :id and status = 'approved' returning id"
        taken_back = self.world.sql(take_back, id=request_id)
        if taken_back:
            self.world.forbid(
                f"request {request_id}",
                f"request {request_id} was taken back ({change})",
                "select id from huntington_transactions"
                f" where disbursement_request_id = {request_id} and status in ('pending', 'failed')",
            )
        return bool(taken_back)

    def _approve_again(self, place: int) -> bool:
        if not self.payments.requests:
            return False
        request_id = self.payments.requests[place % len(self.payments.requests)]
        self.world.allow(f"request {request_id}")
        approve = (
            "update disbursement_requests r set status = 'approved', amount_cents = coalesce((select max(amount_cents)"
            " from huntington_transactions where disbursement_request_id = r.id), amount_cents)"
            " where id = :id and status in ('denied', 'approved') returning id"
        )
        return bool(self.world.sql(approve, id=request_id))

    def _halt(self) -> bool:
        self.world.sql("insert into ops.switches (name) values ('transfers_halted') on conflict do nothing")
        self.world.forbid("halt", "sending was halted")
        return True

    def _resume(self) -> bool:
        self.world.allow("halt")
        return bool(self.world.sql("delete from ops.switches returning name"))

    def _at_the_bank(self, do: Callable[[str, str], None], place: int, why: str) -> bool:
        try:
            do(str(self.transaction(place)), why)
        except httpx.HTTPStatusError:
            return False
        return True

    def _forget(self, place: int) -> bool:
        try:
            self.world.bank.forget(f"seedtrust-transaction-{self.transaction(place)}")
        except httpx.HTTPStatusError:
            return False
        return True
