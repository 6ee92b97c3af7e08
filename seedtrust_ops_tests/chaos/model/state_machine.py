"""The state machine: each rule is something that can happen, in any order, also in the middle of a worker's run.

No rule depends on the effects of the others, so that a seed gives the same history again. A rule that does not apply
does nothing; `Coverage` counts how often each rule had an effect.
"""

from collections import Counter
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from seedtrust_ops.sandbox.bank.faults import FaultKind
from seedtrust_ops_tests.chaos.bank_pool import OPENING_CENTS, BankPool
from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.chaos.model.bank_events import BANK_EVENTS
from seedtrust_ops_tests.chaos.model.history import EVENTS, OTHER_EVENTS, History
from seedtrust_ops_tests.chaos.model.payments import LONG_AGO, Payment, payments, several_payments
from seedtrust_ops_tests.chaos.model.people import PEOPLE_EVENTS
from seedtrust_ops_tests.chaos.model.processes import SimulatedProcess, crash, freeze
from seedtrust_ops_tests.chaos.model.simulation import Simulation, open_simulation
from seedtrust_ops_tests.chaos.violations import Violation

LATE_SECONDS = 0.45
"""A little longer than the response timeout."""
SLOW_FAULTS: tuple[FaultKind, ...] = ("late_response_after_commit", "late_response_before_commit", "slow_drip")
BANK_FAULTS: tuple[FaultKind, ...] = (
    "reset_after_commit",
    "reset_before_commit",
    "error_after_commit",
    "error_before_commit",
    "garbage",
    "in_progress",
    "lagging_lookup",
    "rate_limited",
    "refuse",
    "unauthorized",
    *SLOW_FAULTS,
)
STATUSES = ("queued", "queued", "queued", "draft", "held")
indexes = st.integers(0, 10**6)
durations = st.sampled_from((20.0, 61.0, 661.0, 4_000.0, 3 * 86_400.0))


class InvariantsViolated(AssertionError):
    """A history in which violations were found."""

    def __init__(self, violations: list[Violation]) -> None:
        super().__init__("\n".join(str(one) for one in violations))
        self.violations = violations


PROCESS_EVENTS = ("nothing", "crash", "freeze", "terminate") * 6
"""What can happen to a process apart from `EVENTS`; repeated so that 2,000 steps always include each.

`terminate` is a person's cancellation: Dagster ends the worker's process.
"""
POST_FAULTS, GET_FAULTS = ("refuse", "in_progress"), ("lagging_lookup",)
"""Faults that only one method can have; any other can have both."""


class Coverage:
    """How often each rule ran and how often it had an effect, over all histories of a run."""

    def __init__(self) -> None:
        self.steps = 0
        self.histories = 0
        self.ran: Counter[str] = Counter()
        self.had_effect: Counter[str] = Counter()


class Transfers(RuleBasedStateMachine):
    """One history; the runner sets `environment`, `template`, `banks` and `coverage` on a subclass.

    A seed gives the same histories only for the same source: Hypothesis orders the rules by name and also draws
    constants that it finds in the source.
    """

    environment: ClassVar[ChaosEnvironment]
    template: ClassVar[str]
    banks: ClassVar[BankPool]
    coverage: ClassVar[Coverage]

    def __init__(self) -> None:
        super().__init__()
        self._opened = open_simulation(self.environment, self.template, self.banks)
        self.simulation: Simulation = self._opened.__enter__()
        self.history = History(self.simulation)
        self.is_violated = False
        self.coverage.histories += 1

    def count(self, name: str, had_effect: object = True) -> None:
        """Count a rule; `had_effect` is whether it had any effect, None if it always has."""
        self.coverage.ran[name] += 1
        self.coverage.had_effect[name] += had_effect is None or bool(had_effect)

    # What can happen.

    @initialize(wanted=several_payments)
    def first_batch(self, wanted: list[Payment]) -> None:
        self.history.people.make_batch(wanted, "queued")

    @rule(wanted=several_payments, status=st.sampled_from(STATUSES))
    def batch_is_made(self, wanted: list[Payment], status: str) -> None:
        self.history.people.make_batch(wanted, status)
        self.count(f"a batch is created: {status}")

    @rule(name=st.sampled_from(OTHER_EVENTS), index=indexes, seconds=durations, wanted=payments)
    def something_happens(self, name: str, index: int, seconds: float, wanted: Payment) -> None:
        self._let_happen(name, index, seconds, wanted)

    @rule(names=st.lists(st.sampled_from(BANK_EVENTS), min_size=1, max_size=2), index=indexes, wanted=payments)
    def bank_acts(self, names: list[str], index: int, wanted: Payment) -> None:
        for name in names:
            self._let_happen(name, index, 0, wanted)

    @rule(names=st.lists(st.sampled_from(PEOPLE_EVENTS), min_size=1, max_size=3), index=indexes, wanted=payments)
    def people_act(self, names: list[str], index: int, wanted: Payment) -> None:
        for name in names:
            self._let_happen(name, index, 0, wanted)

    def _let_happen(self, name: str, index: int, seconds: float, wanted: Payment) -> None:
        self.count(name, self.history.events(index, seconds, wanted)[name]())

    @rule(
        event=st.sampled_from((*PROCESS_EVENTS, *EVENTS)),
        at_step=st.integers(1, 30),
        index=indexes,
        other_index=indexes,
        seconds=durations,
        wanted=several_payments,
        is_same_run=st.booleans(),
    )
    def worker_runs(
        self,
        event: str,
        at_step: int,
        index: int,
        other_index: int,
        seconds: float,
        wanted: list[Payment],
        is_same_run: bool,
    ) -> None:
        batch_id = self.history.batch_to_process(index, wanted)
        # In half of the cases the event concerns the batch that the worker is processing.
        event_index = other_index if other_index % 2 else self.history.people.batches.index(batch_id)
        process = self._build_process(event, at_step, event_index, seconds, wanted[0], batch_id)
        outcome = self.simulation.process(batch_id, process, same_run=is_same_run)
        self.count(f"worker, with {event}", process.action_ran or (event == "nothing" and outcome == "done"))

    @rule(
        index=indexes,
        requested_seconds_ago=st.sampled_from((0.0, 3_600.0)),
        wanted=several_payments,
    )
    def batch_is_launched_by_hand(self, index: int, requested_seconds_ago: float, wanted: list[Payment]) -> None:
        outcome = self.simulation.process(self.history.people.batch(index), requested_seconds_ago=requested_seconds_ago)
        self.count("a batch is launched by hand", outcome == "done")

    @rule(index=indexes, wanted=several_payments)
    def two_workers_start(self, index: int, wanted: list[Payment]) -> None:
        self.simulation.workers.process_concurrently(
            self.history.batch_to_process(index, wanted), self.simulation.now()
        )
        self.count("two workers start at once")

    @rule(is_drained=st.booleans())
    def queue_is_processed(self, is_drained: bool) -> None:
        queued = self.simulation.sql("select id from huntington_batches where status = 'queued' order by id")
        for (batch_id,) in queued if is_drained else queued[:1]:
            self.simulation.process(batch_id)
        self.count("the queue is processed", queued)

    @rule(
        event=st.sampled_from((*PROCESS_EVENTS, *EVENTS)),
        at_step=st.integers(1, 12),
        other_index=indexes,
        seconds=durations,
        wanted=payments,
    )
    def healer_runs(self, event: str, at_step: int, other_index: int, seconds: float, wanted: Payment) -> None:
        process = self._build_process(event, at_step, other_index, seconds, wanted)
        outcome = self.simulation.heal(process)
        self.count(f"auto-heal, with {event}", process.action_ran or (event == "nothing" and outcome == "done"))

    @rule(how_many=st.just("all"))
    def frozen_workers_resume(self, how_many: str) -> None:
        self.count(f"{how_many} frozen workers resume", self.simulation.workers.resume_frozen())

    @rule(kind=st.sampled_from(BANK_FAULTS), times=st.integers(1, 6), method=st.sampled_from(("POST", "POST", "GET")))
    def bank_fails(self, kind: FaultKind, times: int, method: Any) -> None:
        is_slow = kind in SLOW_FAULTS
        self.simulation.bank.inject_fault(
            kind,
            times=1 if is_slow else times,
            method="POST" if kind in POST_FAULTS else "GET" if kind in GET_FAULTS else method,
            seconds=LATE_SECONDS if is_slow else 0,
        )
        self.count(f"the bank fails: {kind}")

    @rule(
        wanted=st.lists(payments, min_size=1, max_size=3),
        sent=st.sampled_from(("nothing", "the transfer", "two transfers", "another amount")),
        status=st.sampled_from(("failed", "pending", "processing")),
    )
    def legacy_worker_stopped(self, wanted: list[Payment], sent: str, status: str) -> None:
        then = self.simulation.now() - LONG_AGO
        batch: dict[str, Any] = {"status": "processing", "started_at": then}
        rows: dict[str, Any] = {"status": status}
        if status == "failed":
            batch |= {"status": "failed", "finished_at": then}
            rows |= {"failure_reason": "timeout after 30 s"}
        batch_id = self.history.people.payments.new_batch([], then, **batch)
        ids = self.history.people.payments.add(batch_id, wanted, then, **rows)
        self.history.people.batches.append(batch_id)
        self.history.people.transactions += ids
        self.simulation.change_funds(OPENING_CENTS)
        for _ in range({"nothing": 0, "two transfers": 2}.get(sent, 1)):
            self.simulation.bank.insert_transfer(str(ids[0]), wanted[0].cents + (sent == "another amount"))
        self.simulation.change_funds()
        self.count(f"the legacy worker left '{status}' after sending {sent}")

    def _build_process(
        self, event: str, at_step: int, index: int, seconds: float, wanted: Payment, batch_id: int | None = None
    ) -> SimulatedProcess:
        def terminate(process: SimulatedProcess) -> None:
            if batch_id is not None:
                self.history.people.terminate_run_of(batch_id)
            crash(process)

        if event == "nothing":
            return SimulatedProcess()
        if event in ("crash", "freeze"):
            return SimulatedProcess(at_step, crash if event == "crash" else freeze)
        if event == "terminate":
            return SimulatedProcess(at_step, terminate)
        run_event = self.history.events(index, seconds, wanted)[event]
        return SimulatedProcess(at_step, lambda _: run_event())

    # What must hold.

    @invariant()
    def invariants_hold(self) -> None:
        self.coverage.steps += 1
        self._check(is_final=False)

    def _check(self, *, is_final: bool) -> None:
        violations = self.simulation.violations(is_final=is_final)
        violations += self.simulation.unexpected_errors() + self.history.people.check_decisions()
        if violations:
            self.is_violated = True
            raise InvariantsViolated(violations)

    def teardown(self) -> None:
        """Let everything settle and check the final state, unless a violation was found before."""
        try:
            if not self.is_violated and self.history.people.batches:
                self.simulation.run_until_settled()
                self._check(is_final=True)
        finally:
            self._opened.__exit__(None, None, None)
