"""The events that can happen in a simulation at any time, also in the middle of a worker's run.

They come from people, clocks and the bank; `state_machine` decides when and in what order. Each event returns whether
it had any effect.
"""

from collections.abc import Callable
from typing import Any

import httpx

from seedtrust_ops_tests.chaos.final_invariants import BY_HAND
from seedtrust_ops_tests.chaos.human_acts import PAY_AGAIN
from seedtrust_ops_tests.chaos.model.payments import Payment, Payments
from seedtrust_ops_tests.chaos.model.simulation import Simulation
from seedtrust_ops_tests.chaos.violations import Violation, ViolationKind

EVENTS = (
    "another worker runs",
    "auto-heal runs",
    "sending is halted",
    "sending is resumed",
    "a batch is held",
    "a batch is requeued",
    "a request is denied",
    "a request changes its amount",
    "a request is approved again",
    "a payment is added",
    "a request in flight is denied",
    "a payment in flight is failed by hand and made again",
    "time passes",
    "the database's clock jumps forward",
    "the database's clock jumps back",
    "the bank's clock jumps forward",
    "the bank settles transfers",
    "the bank returns a transfer",
    "the bank dishonors a return",
    "the bank rejects a transfer",
    "the bank forgets a key",
    "the bank recovers",
)


class History:
    """One simulation, and the ids of the batches and transactions created in it so far."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.payments = Payments(simulation.company)
        self.batches: list[int] = []
        self.transactions: list[int] = []
        self._denied: set[int] = set()
        """The requests whose denial is the last thing that a person did to them."""

    def batch(self, index: int) -> int:
        """Return the id of one of the batches; any index is valid."""
        return self.batches[index % len(self.batches)]

    def transaction(self, index: int) -> int:
        """Return the id of one of the transactions; any index is valid."""
        return self.transactions[index % len(self.transactions)]

    def batch_to_process(self, index: int, wanted: list[Payment]) -> int:
        """Return a queued batch, created from `wanted` if there is none, so that a worker has something to do."""
        queued = self.simulation.sql("select id from huntington_batches where status = 'queued' order by id")
        if not queued:
            self.make_batch(wanted, "queued")
            return self.batches[-1]
        return int(queued[index % len(queued)][0])

    def events(self, index: int, seconds: float, wanted: Payment) -> dict[str, Callable[[], Any]]:
        """Return the events by name, as in `EVENTS`, with these arguments."""
        bank = self.simulation.bank
        return {
            "another worker runs": lambda: self.simulation.process(self.batch(index)),
            "auto-heal runs": self.simulation.heal,
            "sending is halted": self._halt,
            "sending is resumed": self._resume,
            "a batch is held": lambda: self._hold(self.batch(index)),
            "a batch is requeued": lambda: self._requeue(self.batch(index)),
            "a request is denied": lambda: self._change_request(index, "status = 'denied'"),
            "a request changes its amount": lambda: self._change_request(index, "amount_cents = amount_cents + 1"),
            "a request is approved again": lambda: self._approve_again(index),
            "a payment is added": lambda: self._add(self.batch(index), wanted),
            "a request in flight is denied": lambda: self._deny_in_flight(self.transaction(index)),
            "a payment in flight is failed by hand and made again": lambda: self._fail_and_pay_again(
                self.transaction(index)
            ),
            "time passes": lambda: self.simulation.clocks.pass_time(seconds),
            "the database's clock jumps forward": lambda: self.simulation.clocks.jump_database(seconds),
            "the database's clock jumps back": lambda: self.simulation.clocks.jump_database(-seconds),
            "the bank's clock jumps forward": lambda: self.simulation.clocks.jump_bank(seconds),
            "the bank settles transfers": bank.settle,
            "the bank returns a transfer": lambda: self._apply_at_bank(bank.return_reference, index, "R03"),
            "the bank dishonors a return": lambda: self._dishonor(self.transaction(index)),
            "the bank rejects a transfer": lambda: self._apply_at_bank(
                bank.reject_reference, index, "account is frozen"
            ),
            "the bank forgets a key": lambda: self._forget(index),
            "the bank recovers": bank.clear_faults,
        }

    def make_batch(self, wanted: list[Payment], status: str) -> None:
        """Create a batch of these payments."""
        batch_id = self.payments.new_batch(wanted, self.simulation.now(), status=status)
        self.batches.append(batch_id)
        self._add_new_transactions(batch_id)
        if status != "queued":
            self._forbid_pending(batch_id, f"batch {batch_id} is '{status}'")

    def _add_new_transactions(self, batch_id: int) -> None:
        rows = self.simulation.sql(
            "select id from huntington_transactions where batch_id = :id order by id", id=batch_id
        )
        self.transactions += [row[0] for row in rows if row[0] not in self.transactions]

    def _forbid_pending(self, batch_id: int, reason: str) -> None:
        pending = f"select id from huntington_transactions where batch_id = {batch_id} and status = 'pending'"
        self.simulation.forbid(f"batch {batch_id}", reason, pending)

    def _add(self, batch_id: int, wanted: Payment) -> bool:
        is_open = "select 1 from huntington_batches where id = :id and status in ('queued', 'processing')"
        if not self.simulation.sql(is_open, id=batch_id):
            return False
        self.payments.add(batch_id, [wanted], self.simulation.now())
        self._add_new_transactions(batch_id)
        return True

    def _hold(self, batch_id: int) -> bool:
        hold = (
            "update huntington_batches set status = 'held'"
            " where id = :id and status in ('queued', 'processing') returning id"
        )
        held = self.simulation.sql(hold, id=batch_id)
        if held:
            self._forbid_pending(batch_id, f"batch {batch_id} is held")
        return bool(held)

    def _requeue(self, batch_id: int) -> bool:
        self.simulation.allow(f"batch {batch_id}")
        queue = (
            "update huntington_batches set status = 'queued', queued_at = clock_timestamp()"
            " where id = :id and status <> 'queued' returning id"
        )
        return bool(self.simulation.sql(queue, id=batch_id))

    def _change_request(self, index: int, change: str) -> bool:
        if not self.payments.requests:
            return False
        return self._change(self.payments.requests[index % len(self.payments.requests)], change)

    def _change(self, request_id: int, change: str) -> bool:
        update = f"update disbursement_requests set {change} where id = :id and status = 'approved' returning status"
        changed = self.simulation.sql(update, id=request_id)
        if changed:
            if changed[0][0] == "denied":
                self._denied.add(request_id)
            self.simulation.forbid(
                f"request {request_id}",
                f"disbursement request {request_id} was changed ({change})",
                "select id from huntington_transactions"
                f" where disbursement_request_id = {request_id} and status in ('pending', 'failed')",
            )
        return bool(changed)

    def _approve_again(self, index: int) -> bool:
        if not self.payments.requests:
            return False
        request_id = self.payments.requests[index % len(self.payments.requests)]
        self.simulation.allow(f"request {request_id}")
        self._denied.discard(request_id)
        approve = (
            "update disbursement_requests r set status = 'approved', amount_cents = coalesce((select max(amount_cents)"
            " from huntington_transactions where disbursement_request_id = r.id), amount_cents)"
            " where id = :id and status in ('denied', 'approved') returning id"
        )
        return bool(self.simulation.sql(approve, id=request_id))

    def _deny_in_flight(self, transaction_id: int) -> bool:
        in_flight = (
            "select disbursement_request_id from huntington_transactions where id = :id"
            " and status in ('processing', 'submitted') and disbursement_request_id is not null"
        )
        return any(
            self._change(request_id, "status = 'denied'")
            for (request_id,) in self.simulation.sql(in_flight, id=transaction_id)
        )

    def _fail_and_pay_again(self, transaction_id: int) -> bool:
        fail = (
            f"update huntington_transactions set status = 'failed', failure_reason = '{BY_HAND}' where id = :id"
            " and status in ('processing', 'submitted') and disbursement_request_id is not null returning id"
        )
        if not self.simulation.sql(fail, id=transaction_id):
            return False
        ((batch_id,),) = self.simulation.sql(PAY_AGAIN, id=transaction_id)
        self.batches.append(batch_id)
        self._add_new_transactions(batch_id)
        return True

    def check_decisions(self) -> list[Violation]:
        """Return a violation for each request that a person has denied and that is payable again."""
        payable = {
            row[0] for row in self.simulation.sql("select id from disbursement_requests where status = 'approved'")
        }
        return [
            Violation(ViolationKind.STATUS_MISMATCH, f"Request {one} was denied, and is approved again by nobody.")
            for one in sorted(self._denied & payable)
        ]

    def _dishonor(self, transaction_id: int) -> bool:
        try:
            self.simulation.bank.dishonor_reference(str(transaction_id))
        except httpx.HTTPStatusError:
            return False
        return True

    def _halt(self) -> bool:
        self.simulation.sql("insert into ops.switches (name) values ('transfers_halted') on conflict do nothing")
        self.simulation.forbid("halt", "sending was halted")
        return True

    def _resume(self) -> bool:
        self.simulation.allow("halt")
        return bool(self.simulation.sql("delete from ops.switches returning name"))

    def _apply_at_bank(self, action: Callable[[str, str], None], index: int, reason: str) -> bool:
        try:
            action(str(self.transaction(index)), reason)
        except httpx.HTTPStatusError:
            return False
        return True

    def _forget(self, index: int) -> bool:
        try:
            self.simulation.bank.forget_key(f"seedtrust-transaction-{self.transaction(index)}")
        except httpx.HTTPStatusError:
            return False
        return True
