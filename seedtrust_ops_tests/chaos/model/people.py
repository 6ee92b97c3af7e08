"""What people do in the model: to batches, requests and transactions, on the screens of the platform or with commands.

Whatever they may write into a row, they write at any time, also while its money is in flight. What a judgment must know
of it goes into the case's `HumanRecord`; nothing may be sent that they have forbidden.
"""

from collections.abc import Callable
from functools import partial
from itertools import count

from sqlalchemy.exc import IntegrityError

from seedtrust_ops.domain.audit import Operator, attest
from seedtrust_ops.domain.transfers.batch_lifecycle import release_batch
from seedtrust_ops.domain.transfers.settlement import SettleAs, Settlement, ask_bank, known_bank_id, settle
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops_tests.chaos.final_invariants import BY_HAND, STATUS_FOR_BANK_STATUS
from seedtrust_ops_tests.chaos.human_acts import PAY_AGAIN
from seedtrust_ops_tests.chaos.model.payments import ROLES, Payment, Payments
from seedtrust_ops_tests.chaos.model.simulation import Simulation
from seedtrust_ops_tests.chaos.model.workers import GRACE_SECONDS
from seedtrust_ops_tests.chaos.violations import Violation, ViolationKind

STATUSES = ("pending", "processing", "submitted", "completed", "failed", "returned")
SETTLED_AS = tuple(SettleAs)
NOT_YET_SENT = "status in ('pending', 'failed')"
PEOPLE_EVENTS = (
    "sending is halted",
    "sending is resumed",
    "a batch is held",
    "a batch is requeued",
    "a held batch is released",
    "a person terminates a run",
    "a request is denied",
    "a request changes its amount",
    "a request is approved again",
    "a payment is added",
    "a request in flight is denied",
    "a payment in flight is failed by hand and made again",
    "a payment in flight is set to pending by hand and queued again",
    "a payment that failed is made again",
    "a transaction is moved to another batch",
    "a transaction is deleted",
    "a transaction changes its amount",
    "a transaction is given another request",
    "a user leaves",
    "everybody with a role leaves",
    "everybody comes back",
    *(f"a transaction is set to '{status}' by hand" for status in STATUSES),
    *(f"a transfer is settled as {status}" for status in SETTLED_AS),
    *(f"a transfer is settled as {status}, whatever the bank says" for status in SETTLED_AS),
)
OPERATOR = "ana"


class People:
    """Everybody who works with one simulation, and the batches and transactions created in it so far."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.payments = Payments(simulation.company)
        self.batches: list[int] = []
        self.transactions: list[int] = []
        self._denied: set[int] = set()
        """The requests whose denial is the last thing that a person did to them."""
        self._numbers = count(1)

    def batch(self, index: int) -> int:
        """Return the id of one of the batches; any index is valid."""
        return self.batches[index % len(self.batches)]

    def transaction(self, index: int) -> int:
        """Return the id of one of the transactions; any index is valid."""
        return self.transactions[index % len(self.transactions)]

    def pick(self, index: int) -> int:
        """Return one of the transactions: of half of the indexes, one that was sent."""
        sent = self.simulation.sql("select distinct transaction_id from witness.orders order by transaction_id")
        if sent and index % 2:
            return int(sent[index // 2 % len(sent)][0])
        return self.transaction(index)

    def events(self, index: int, wanted: Payment) -> dict[str, Callable[[], object]]:
        """Return what people can do, by the names in `PEOPLE_EVENTS`, with these arguments."""
        batch_id, transaction_id = self.batch(index), self.pick(index)
        # Another number than the index, or a batch could only be moved to itself.
        other = index // 7
        events: dict[str, Callable[[], object]] = {
            "sending is halted": self._halt,
            "sending is resumed": self._resume,
            "a batch is held": lambda: self._hold(batch_id),
            "a batch is requeued": lambda: self._requeue(batch_id),
            "a held batch is released": lambda: self._release(index),
            "a person terminates a run": lambda: self._terminate(index),
            "a request is denied": lambda: self._change_request(index, "status = 'denied'"),
            "a request changes its amount": lambda: self._change_request(index, "amount_cents = amount_cents + 1"),
            "a request is approved again": lambda: self._approve_again(index),
            "a payment is added": lambda: self._add(batch_id, wanted),
            "a request in flight is denied": lambda: self._deny_in_flight(transaction_id),
            "a payment in flight is failed by hand and made again": lambda: self._fail_and_pay_again(transaction_id),
            "a payment in flight is set to pending by hand and queued again": lambda: self._queue_again(transaction_id),
            "a payment that failed is made again": lambda: self._pay_failed_again(index),
            "a transaction is moved to another batch": lambda: self._move(transaction_id, self.batch(other)),
            "a transaction is deleted": lambda: self._delete(transaction_id),
            "a transaction changes its amount": lambda: self._change(transaction_id, "amount_cents = amount_cents + 1"),
            "a transaction is given another request": lambda: self._give_request(transaction_id, other),
            "a user leaves": lambda: self._leave(f"id = {self._user(index)}"),
            "everybody with a role leaves": lambda: self._leave(f"role = '{ROLES[index % len(ROLES)]}'"),
            "everybody comes back": lambda: self.simulation.sql("update users set is_active = true returning id"),
        }
        for status in STATUSES:
            events[f"a transaction is set to '{status}' by hand"] = partial(self._set_status, transaction_id, status)
        for decision in SETTLED_AS:
            settle_as = partial(self._settle, transaction_id, decision)
            events[f"a transfer is settled as {decision}"] = partial(settle_as, insist=False)
            events[f"a transfer is settled as {decision}, whatever the bank says"] = partial(settle_as, insist=True)
        return events

    def make_batch(self, wanted: list[Payment], status: str) -> None:
        """Create a batch of these payments."""
        batch_id = self.payments.new_batch(wanted, self.simulation.now(), status=status)
        self.batches.append(batch_id)
        self._add_new_transactions(batch_id)
        if status != "queued":
            self._forbid_pending(batch_id, f"batch {batch_id} is '{status}'")

    def check_decisions(self) -> list[Violation]:
        """Return a violation for each request that a person has denied and that is payable again."""
        payable = {
            row[0] for row in self.simulation.sql("select id from disbursement_requests where status = 'approved'")
        }
        return [
            Violation(ViolationKind.STATUS_MISMATCH, f"Request {one} was denied, and is approved again by nobody.")
            for one in sorted(self._denied & payable)
        ]

    # Batches.

    def _halt(self) -> bool:
        self.simulation.sql("insert into ops.switches (name) values ('transfers_halted') on conflict do nothing")
        self.simulation.forbid("halt", "sending was halted")
        return True

    def _resume(self) -> bool:
        self.simulation.allow("halt")
        return bool(self.simulation.sql("delete from ops.switches returning name"))

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

    def _release(self, index: int) -> bool:
        held = self.simulation.sql("select id from huntington_batches where status = 'held' order by id")
        if not held:
            return False
        batch_id = held[index % len(held)][0]
        try:
            with self.simulation.company.sessions.begin() as session:
                attest(session, Operator(OPERATOR))
                release_batch(session, batch_id)
        except SeedTrustError:
            return False
        self.simulation.allow(f"batch {batch_id}")
        return True

    def _terminate(self, index: int) -> bool:
        """Cancel one of the runs that hold a lease; whether its worker notices depends on what it is doing."""
        leased = self.simulation.sql("select batch_id from ops.batch_leases where token is not null order by batch_id")
        return bool(leased) and self.terminate_run_of(leased[index % len(leased)][0])

    def terminate_run_of(self, batch_id: int) -> bool:
        """Cancel the run that holds a batch's lease: nothing more of it is sent until a person releases it.

        A frozen run is left alone: Dagster would kill it, and the model resumes it.
        """
        workers = self.simulation.workers
        holder = "select holder from ops.batch_leases where batch_id = :id and token is not null"
        runs = [run_id for (run_id,) in self.simulation.sql(holder, id=batch_id) if run_id not in workers.frozen_runs]
        for run_id in runs:
            workers.canceled_runs.add(run_id)
            self.simulation.forbid(
                f"batch {batch_id}",
                f"a person had terminated {run_id}, which was sending batch {batch_id}",
                f"select id from huntington_transactions where batch_id = {batch_id}",
            )
        return bool(runs)

    def _forbid_pending(self, batch_id: int, reason: str) -> None:
        pending = f"select id from huntington_transactions where batch_id = {batch_id} and status = 'pending'"
        self.simulation.forbid(f"batch {batch_id}", reason, pending)

    def _add_new_transactions(self, batch_id: int) -> None:
        rows = self.simulation.sql(
            "select id from huntington_transactions where batch_id = :id order by id", id=batch_id
        )
        self.transactions += [row[0] for row in rows if row[0] not in self.transactions]

    def _add(self, batch_id: int, wanted: Payment) -> bool:
        is_open = "select 1 from huntington_batches where id = :id and status in ('queued', 'processing')"
        if not self.simulation.sql(is_open, id=batch_id):
            return False
        self.payments.add(batch_id, [wanted], self.simulation.now())
        self._add_new_transactions(batch_id)
        return True

    # Requests.

    def _change_request(self, index: int, change: str) -> bool:
        if not self.payments.requests:
            return False
        return self._change_approved(self.payments.requests[index % len(self.payments.requests)], change)

    def _change_approved(self, request_id: int, change: str) -> bool:
        update = f"update disbursement_requests set {change} where id = :id and status = 'approved' returning status"
        changed = self.simulation.sql(update, id=request_id)
        if changed:
            if changed[0][0] == "denied":
                self._denied.add(request_id)
            self.simulation.forbid(
                f"request {request_id}",
                f"disbursement request {request_id} was changed ({change})",
                f"select id from huntington_transactions where disbursement_request_id = {request_id}"
                f" and {NOT_YET_SENT}",
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
            self._change_approved(request_id, "status = 'denied'")
            for (request_id,) in self.simulation.sql(in_flight, id=transaction_id)
        )

    def _fail_and_pay_again(self, transaction_id: int) -> bool:
        in_flight = (
            "select 1 from huntington_transactions where id = :id"
            " and status in ('processing', 'submitted') and disbursement_request_id is not null"
        )
        if not self.simulation.sql(in_flight, id=transaction_id):
            return False
        self._set_status(transaction_id, "failed")
        self._pay_again(transaction_id)
        return True

    def _queue_again(self, transaction_id: int) -> bool:
        batch = "select batch_id from huntington_transactions where id = :id and status in ('processing', 'submitted')"
        in_flight = self.simulation.sql(batch, id=transaction_id)
        return bool(in_flight) and self._set_status(transaction_id, "pending") and self._requeue(in_flight[0][0])

    def _pay_failed_again(self, index: int) -> bool:
        failed = self.simulation.sql(
            "select id from huntington_transactions where status in ('failed', 'returned')"
            " and disbursement_request_id is not null order by id"
        )
        if not failed:
            return False
        self._pay_again(failed[index % len(failed)][0])
        return True

    def _pay_again(self, transaction_id: int) -> None:
        ((batch_id,),) = self.simulation.sql(PAY_AGAIN, id=transaction_id)
        self.batches.append(batch_id)
        self._add_new_transactions(batch_id)

    # Transactions.

    def _change(self, transaction_id: int, change: str) -> bool:
        self._record_change(transaction_id)
        statement = f"update huntington_transactions set {change} where id = :id returning id"
        return bool(self.simulation.sql(statement, id=transaction_id))

    def _record_change(self, transaction_id: int) -> None:
        """Write down what the judgments must know of a change, before anybody can see it."""
        before = self.simulation.sql(
            "select disbursement_request_id, batch_id from huntington_transactions where id = :id", id=transaction_id
        )
        human = self.simulation.human
        human.changed.add(transaction_id)
        human.requests.update(row[0] for row in before if row[0] is not None)
        human.batches.update(row[1] for row in before)

    def _set_status(self, transaction_id: int, status: str) -> bool:
        reason = f"'{BY_HAND}'" if status in ("failed", "returned") else "null"
        self.simulation.human.statuses[transaction_id] = status
        return self._change(transaction_id, f"status = '{status}', failure_reason = {reason}")

    def _move(self, transaction_id: int, batch_id: int) -> bool:
        human = self.simulation.human
        human.batches.add(batch_id)
        human.moved.add(transaction_id)
        # What a person takes out of a held batch is no longer held, unless the other batch is, too.
        self.simulation.allow_transaction("batch ", transaction_id)
        is_moved = self._change(transaction_id, f"batch_id = {batch_id}")
        status = self.simulation.scalar("select status from huntington_batches where id = :id", id=batch_id)
        if status in ("held", "draft"):
            self._forbid_pending(batch_id, f"batch {batch_id} is '{status}'")
        return is_moved

    def _delete(self, transaction_id: int) -> bool:
        self._record_change(transaction_id)
        try:
            return bool(
                self.simulation.sql(
                    "delete from huntington_transactions where id = :id returning id", id=transaction_id
                )
            )
        except IntegrityError:
            # What is booked cannot be deleted.
            return False

    def _give_request(self, transaction_id: int, index: int) -> bool:
        if not self.payments.requests:
            return False
        request_id = self.payments.requests[index % len(self.payments.requests)]
        self.simulation.human.requests.add(request_id)
        self.simulation.allow_transaction("request ", transaction_id)
        return self._change(transaction_id, f"disbursement_request_id = {request_id}")

    def _settle(self, transaction_id: int, as_status: SettleAs, *, insist: bool) -> bool:
        simulation = self.simulation
        sessions = simulation.company.sessions
        try:
            with sessions() as session:
                known = known_bank_id(session, transaction_id)
            answer = ask_bank(simulation.workers.open_bank, transaction_id, known)
            decision = Settlement(
                transaction_id, as_status, f"decision {next(self._numbers)}", OPERATOR, insist, GRACE_SECONDS
            )
            with sessions.begin() as session:
                attest(session, Operator(OPERATOR), decision.reason)
                report = settle(session, decision, answer)
        except SeedTrustError:
            return False
        human = simulation.human
        human.settled[transaction_id] = as_status.value
        human.changed.add(transaction_id)
        human.statuses.pop(transaction_id, None)
        if report.request_id is not None:
            human.requests.add(report.request_id)
        truth = [one for one in simulation.bank.ledger()["transfers"] if one["reference"] == str(transaction_id)]
        statuses = {STATUS_FOR_BANK_STATUS[one["status"]] for one in truth} or {"failed"}
        if statuses != {as_status.value}:
            human.settled_against_bank.add(transaction_id)
        if answer is not None and STATUS_FOR_BANK_STATUS[answer.status] != as_status:
            human.insisted.add(transaction_id)
            if not insist:
                raise AssertionError(
                    f"Transaction {transaction_id} was settled as {as_status}, although the bank says {answer.status} "
                    "and nobody insisted."
                )
        return True

    # Users.

    def _user(self, index: int) -> int:
        users = self.simulation.sql("select id from users where role = any(:roles) order by id", roles=list(ROLES))
        return int(users[index % len(users)][0])

    def _leave(self, condition: str) -> bool:
        leave = f"update users set is_active = false where is_active and {condition} returning id"
        return bool(self.simulation.sql(leave))
