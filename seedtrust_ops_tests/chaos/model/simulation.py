"""One simulation of the model: one company's database, one bank, three clocks, and the periods when sending is banned.

What happens in it is decided by `state_machine`, and its workers are in `workers`; `invariants` says what must hold.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import sessionmaker

from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops.sandbox.bank.control_client import LoggedRequest, SandboxBank
from seedtrust_ops_tests.chaos.bank_pool import OPENING_CENTS, BankPool
from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.chaos.human_record import HumanRecord
from seedtrust_ops_tests.chaos.invariants import SendBan, check_invariants, check_resends, last_request_id
from seedtrust_ops_tests.chaos.model.clocks import Clocks, ProcessClock, with_model_clock
from seedtrust_ops_tests.chaos.model.processes import SimulatedProcess
from seedtrust_ops_tests.chaos.model.workers import RESPONSE_TIMEOUT_SECONDS, WorkerPool
from seedtrust_ops_tests.chaos.recovery import end_inquiry_pauses, evaluate_health
from seedtrust_ops_tests.chaos.violations import Violation, ViolationKind
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.waiters import wait_until

HOUR = 3600.0
MAX_ROUNDS_TO_SETTLE = 12
FUNDS = "funds"
"""The key of the period in which nothing may be sent beyond what the funding account has."""


class Simulation:
    """Created for every history by `open_simulation`."""

    def __init__(self, bank: SandboxBank, workers: WorkerPool, clocks: Clocks, company: Company) -> None:
        self.bank = bank
        self.workers = workers
        self.clocks = clocks
        self.company = company
        self.human = HumanRecord()
        self._bans: dict[str, SendBan] = {}
        self._lifted_bans: list[tuple[str, SendBan]] = []
        self._pending_bans: dict[str, Callable[[], None]] = {}
        self._unnotified: list[Violation] = []

    def sql(self, statement: str, **values: Any) -> list[Any]:
        """Run a statement as the platform's applications would, and return its rows."""
        with self.company.sessions.begin() as session:
            result: Any = session.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    def scalar(self, statement: str, **values: Any) -> Any:
        """Return the single value that a statement selects."""
        return self.sql(statement, **values)[0][0]

    def now(self) -> datetime:
        """Return the database's time (UTC)."""
        now: datetime = self.scalar("select clock_timestamp()")
        return now

    def process(
        self,
        batch_id: int,
        process: SimulatedProcess | None = None,
        *,
        same_run: bool = False,
        requested_seconds_ago: float = 0,
    ) -> str:
        """Let a worker process a batch in one simulated process; return how that ended, as `WorkerPool.process` does.

        `requested_seconds_ago` is when the run was requested; with `same_run`, the run of an earlier process is
        retried.
        """
        process = process or SimulatedProcess()
        outcome = self.workers.process(
            batch_id,
            process,
            requested_seconds_ago=requested_seconds_ago,
            same_run=same_run,
            now=self.now(),
        )
        if outcome == "done" and not process.action_ran and not self.workers.is_running:
            self._check_wait(batch_id)
        return outcome

    def _check_wait(self, batch_id: int) -> None:
        """If a run has ended well and its batch still waits, an alert must say for what.

        Unless it waits for another worker's lease, which ends by itself: a person queued the batch after a crash.
        """
        waits = (
            "select 1 from huntington_batches where id = :id and status = 'queued' and not exists (select 1"
            " from ops.batch_leases where batch_id = :id and token is not null and expires_at > clock_timestamp())"
        )
        if not self.sql(waits, id=batch_id):
            return
        self.evaluate_health()
        told = "select 1 from ops.alerts where resolved_at is null and detail ~ ('\\m' || :id || '\\M')"
        if not self.sql(told, id=str(batch_id)):
            message = f"Batch {batch_id} waits after a run that ended well, and no alert says for what."
            self._unnotified.append(Violation(ViolationKind.UNEXPLAINED, message))

    def heal(self, process: SimulatedProcess | None = None) -> str:
        """Let a worker run auto-heal; return how that ended."""
        return self.workers.heal(process or SimulatedProcess())

    def evaluate_health(self) -> None:
        """Evaluate the health rules about transfers, as the health sensor does every minute."""
        evaluate_health(self.company.sessions)

    def forbid(self, key: str, reason: str, query: str | None = None) -> None:
        """Ban sending, or only the transactions that `query` selects, until `allow(key)`.

        A worker that is running now may still send what it has recorded; the ban begins when it has finished.
        """

        def begin() -> None:
            ids = None if query is None else frozenset(row[0] for row in self.sql(query))
            recorded = "select id from huntington_transactions where status = 'processing'"
            if key == FUNDS:
                # A frozen worker has checked the funds for its whole batch.
                recorded = (
                    "select t.id from huntington_transactions t join huntington_batches b on b.id = t.batch_id"
                    " where b.status = 'processing'"
                )
            exempt_ids = frozenset(row[0] for row in self.sql(recorded)) if self.workers.has_frozen else frozenset()
            self._lift(key)
            self._bans[key] = SendBan(reason, last_request_id(self.bank), None, ids, exempt_ids)

        self._pending_bans[key] = begin
        self._begin_pending_bans()

    def change_funds(self, available_cents: int | None = None) -> None:
        """Set what the funding account has, or only note that money has left it in another way than by our transfers.

        A worker that is running now may have checked the funds before; from its end on, none may lack them.
        """
        self._lift(FUNDS)
        if available_cents is not None:
            self.bank.set_available_cents(available_cents)
        self.forbid(FUNDS, "the funding account did not have its amount")

    def allow(self, key: str) -> None:
        """End a ban."""
        self._pending_bans.pop(key, None)
        self._lift(key)

    def allow_transaction(self, prefix: str, transaction_id: int) -> None:
        """End the bans of one transaction whose key begins with `prefix`; others stay banned.

        A ban that has not begun yet selects its transactions when it begins.
        """
        for key, ban in list(self._bans.items()):
            if key.startswith(prefix) and ban.transaction_ids is not None and transaction_id in ban.transaction_ids:
                self._lift(key)
                self._bans[key] = replace(
                    ban,
                    after_request=last_request_id(self.bank),
                    transaction_ids=ban.transaction_ids - {transaction_id},
                )

    def _lift(self, key: str) -> None:
        ban = self._bans.pop(key, None)
        if ban is not None:
            self._lifted_bans.append((key, replace(ban, until_request=last_request_id(self.bank))))

    def _begin_pending_bans(self) -> None:
        if not self.workers.is_running:
            for begin in self._pending_bans.values():
                begin()
            self._pending_bans.clear()

    def violations(self, *, is_final: bool = False) -> list[Violation]:
        """Check the invariants and return the violations."""
        self._begin_pending_bans()
        periods = [*self._lifted_bans, *self._bans.items()]
        bans = [ban for key, ban in periods if key != FUNDS]
        steady_funds = [ban for key, ban in periods if key == FUNDS]
        return [
            *check_invariants(
                self.company.sessions,
                self.bank,
                is_final=is_final,
                bans=bans,
                steady_funds=steady_funds,
                human=self.human,
            ),
            *check_resends(self.bank),
            *self._unnotified,
        ]

    def unexpected_errors(self) -> list[Violation]:
        """Return the workers' unexpected errors as violations."""
        return [
            Violation(ViolationKind.UNEXPLAINED, f"A worker raised an unexpected error: {one}")
            for one in self.workers.unexpected_errors
        ]

    def _late_requests(self) -> list[LoggedRequest]:
        late = ("late_response_before_commit", "late_response_after_commit")
        return [one for one in self.bank.requests() if one["fault"] in late and one["status"] is None]

    def run_until_settled(self) -> None:
        """Inject no more faults and let time pass until nothing is queued or open any more."""
        self.workers.resume_frozen()
        self.bank.clear_faults()
        self.change_funds(OPENING_CENTS)
        wait_until(lambda: not self._late_requests(), what="the bank to finish its late requests")
        self.sql("delete from ops.switches")
        self.allow("halt")
        self.clocks.catch_up()
        for _ in range(MAX_ROUNDS_TO_SETTLE):
            self.clocks.pass_time(HOUR)
            end_inquiry_pauses(self.company.sessions)
            is_healed = self.heal() == "done"
            queued = self.sql("select id from huntington_batches where status = 'queued' order by priority desc, id")
            for (batch_id,) in queued:
                self.process(batch_id)
            # If this machine stalled, the bank seemed not to respond, so auto-heal runs again.
            if (
                is_healed
                and not queued
                # A transfer that the bank does not find counts as forgotten after the grace period.
                and not self.scalar(
                    "select count(*) from ops.transfer_evidence where missing_since is not null and not exists ("
                    "select 1 from ops.alerts where rule = 'transfer_forgotten_by_bank' and resolved_at is null"
                    " and subject = 'transaction ' || transaction_id)"
                )
                and not self.scalar(
                    "select count(*) from huntington_batches b where status = 'processing' and not exists ("
                    "select 1 from huntington_transactions t join ops.alerts a on a.subject = 'transaction ' || t.id"
                    " where t.batch_id = b.id and t.status = 'processing' and a.resolved_at is null)"
                )
            ):
                break
        wait_until(
            lambda: self.heal() == "done" or self.workers.unexpected_errors,
            every=0.5,
            what="a last auto-heal run with all responses",
        )
        self.evaluate_health()


@contextmanager
def open_simulation(
    environment: ChaosEnvironment,
    template: str,
    banks: BankPool,
    *,
    response_timeout_seconds: float = RESPONSE_TIMEOUT_SECONDS,
) -> Iterator[Simulation]:
    """Open a simulation on a fresh database, copied from `template`, and a fresh bank.

    `response_timeout_seconds` is how long its workers wait for one response of the bank.
    """
    process_clock = ProcessClock()
    banks.replace_bank(ach_settlement_seconds=2 * 86_400)
    with environment.database(template=template) as plain_url, process_clock.installed():
        url = with_model_clock(plain_url)
        engine = create_application_engine(url)
        workers = WorkerPool(url, banks, environment.cipher, response_timeout_seconds=response_timeout_seconds)
        company = Company(sessionmaker(engine, expire_on_commit=False), environment.cipher)
        try:
            yield Simulation(banks.control, workers, Clocks(engine, process_clock, banks.control), company)
        finally:
            workers.close()
            engine.dispose()
