"""The state machine: every rule is something that can happen, in any order, also in the middle of a worker's life.

No rule looks at what came of the others, so that one seed always tells the same history; a rule that fits nothing
does nothing, and the count of what really happened is kept in `Coverage`.
"""

from collections import Counter
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from seedtrust_ops.sandbox.bank.faults import FaultKind
from seedtrust_ops_tests.chaos.bank_pool import FreshBanks
from seedtrust_ops_tests.chaos.environment import Ground
from seedtrust_ops_tests.chaos.model.environment import World, world_on
from seedtrust_ops_tests.chaos.model.history import HAPPENINGS, History
from seedtrust_ops_tests.chaos.model.payments import LONG_AGO, Payment, payments, several_payments
from seedtrust_ops_tests.chaos.model.processes import Life, die, freeze
from seedtrust_ops_tests.chaos.violations import Kind, Violation

LATE_SECONDS = 0.45
"""A little longer than an answer is waited for."""
SLOW: tuple[FaultKind, ...] = ("answer_late_after_commit", "answer_late_before_commit", "slow_drip")
FAULTS: tuple[FaultKind, ...] = (
    "reset_after_commit",
    "reset_before_commit",
    "error_after_commit",
    "error_before_commit",
    "garbage",
    "rate_limited",
    "refuse",
    "unauthorized",
    *SLOW,
)
STATUSES = ("queued", "queued", "queued", "draft", "held")
places = st.integers(0, 10**6)
durations = st.sampled_from((20.0, 61.0, 661.0, 4_000.0, 3 * 86_400.0))


class BrokenPromises(AssertionError):
    """A history in which the checker found something."""

    def __init__(self, violations: list[Violation]) -> None:
        super().__init__("\n".join(str(one) for one in violations))
        self.violations = violations


BY_ITSELF = ("nothing", "death", "frost") * 4
"""What befalls a worker or a healer without anything else happening; so often that no 2,000 steps are without each."""


class Coverage:
    """How often each rule ran, and how often something came of it; over all histories of a run."""

    def __init__(self) -> None:
        self.steps = 0
        self.histories = 0
        self.ran: Counter[str] = Counter()
        self.came_of_it: Counter[str] = Counter()


class Transfers(RuleBasedStateMachine):
    """One history; `ground`, `template` and `banks` are set on a subclass by whoever runs it."""

    ground: ClassVar[Ground]
    template: ClassVar[str]
    banks: ClassVar[FreshBanks]
    coverage: ClassVar[Coverage]

    def __init__(self) -> None:
        super().__init__()
        self._opened = world_on(self.ground, self.template, self.banks)
        self.world: World = self._opened.__enter__()
        self.history = History(self.world)
        self.is_broken = False
        self.coverage.histories += 1

    def happened(self, name: str, came_of_it: object = True) -> None:
        """Count a rule; `came_of_it` is whether it found anything to happen to, None where it always does."""
        self.coverage.ran[name] += 1
        self.coverage.came_of_it[name] += came_of_it is None or bool(came_of_it)

    # What can happen.

    @initialize(wanted=several_payments)
    def first_batch(self, wanted: list[Payment]) -> None:
        self.history.make_batch(wanted, "queued")

    @rule(wanted=several_payments, status=st.sampled_from(STATUSES))
    def batch_is_made(self, wanted: list[Payment], status: str) -> None:
        self.history.make_batch(wanted, status)
        self.happened(f"a batch is made: {status}")

    @rule(what=st.sampled_from(HAPPENINGS), place=places, seconds=durations, wanted=payments)
    def something_happens(self, what: str, place: int, seconds: float, wanted: Payment) -> None:
        self.happened(what, self.history.happenings(place, seconds, wanted)[what]())

    @rule(
        befalls=st.sampled_from((*BY_ITSELF, *HAPPENINGS)),
        at=st.integers(1, 30),
        place=places,
        other=places,
        seconds=durations,
        wanted=several_payments,
        is_same_run=st.booleans(),
    )
    def worker_works(
        self,
        befalls: str,
        at: int,
        place: int,
        other: int,
        seconds: float,
        wanted: list[Payment],
        is_same_run: bool,
    ) -> None:
        batch_id = self.history.batch_to_process(place, wanted)
        # Every other time it is this very batch that something is done to in the worker's middle.
        life = self._life(befalls, at, other if other % 2 else self.history.batches.index(batch_id), seconds, wanted[0])
        ending = self.world.process(batch_id, life, same_run=is_same_run)
        self.happened(
            f"befalls a worker: {befalls}", life.has_been_struck or (befalls == "nothing" and ending == "done")
        )

    @rule(place=places, late=st.sampled_from((0.0, 3_600.0)), wanted=several_payments)
    def batch_is_launched_by_hand(self, place: int, late: float, wanted: list[Payment]) -> None:
        ending = self.world.process(self.history.batch(place), late=late)
        self.happened("a batch is launched by hand", ending == "done")

    @rule(place=places, wanted=several_payments)
    def two_workers_work(self, place: int, wanted: list[Payment]) -> None:
        self.world.hands.process_by_two(self.history.batch_to_process(place, wanted), self.world.now())
        self.happened("two workers start at once")

    @rule(is_worked_off=st.booleans())
    def queue_is_worked_off(self, is_worked_off: bool) -> None:
        queued = self.world.sql("select id from huntington_batches where status = 'queued' order by id")
        for (batch_id,) in queued if is_worked_off else queued[:1]:
            self.world.process(batch_id)
        self.happened("the queue is worked off", queued)

    @rule(
        befalls=st.sampled_from((*BY_ITSELF, *HAPPENINGS)),
        at=st.integers(1, 12),
        other=places,
        seconds=durations,
        wanted=payments,
    )
    def healer_heals(self, befalls: str, at: int, other: int, seconds: float, wanted: Payment) -> None:
        life = self._life(befalls, at, other, seconds, wanted)
        ending = self.world.heal(life)
        self.happened(
            f"befalls a healer: {befalls}", life.has_been_struck or (befalls == "nothing" and ending == "done")
        )

    @rule(how_many=st.just("all"))
    def frozen_go_on(self, how_many: str) -> None:
        self.happened(f"{how_many} who are frozen go on", self.world.hands.thaw())

    @rule(kind=st.sampled_from(FAULTS), times=st.integers(1, 6), method=st.sampled_from(("POST", "POST", "GET")))
    def bank_fails(self, kind: FaultKind, times: int, method: Any) -> None:
        is_slow = kind in SLOW
        self.world.bank.order_fault(
            kind,
            times=1 if is_slow else times,
            method="POST" if kind == "refuse" else method,
            seconds=LATE_SECONDS if is_slow else 0,
        )
        self.happened(f"the bank fails: {kind}")

    @rule(
        wanted=st.lists(payments, min_size=1, max_size=3),
        made=st.sampled_from(("nothing", "the transfer", "two transfers", "another amount")),
        left=st.sampled_from(("failed", "pending", "processing")),
    )
    def legacy_worker_died(self, wanted: list[Payment], made: str, left: str) -> None:
        then = self.world.now() - LONG_AGO
        batch: dict[str, Any] = {"status": "processing", "started_at": then}
        rows: dict[str, Any] = {"status": left}
        if left == "failed":
            batch |= {"status": "failed", "finished_at": then}
            rows |= {"failure_reason": "timeout after 30 s"}
        batch_id = self.history.payments.new_batch([], then, **batch)
        ids = self.history.payments.add(batch_id, wanted, then, **rows)
        self.history.batches.append(batch_id)
        self.history.transactions += ids
        for _ in range({"nothing": 0, "two transfers": 2}.get(made, 1)):
            self.world.bank.plant_transfer(str(ids[0]), wanted[0].cents + (made == "another amount"))
        self.happened(f"the legacy worker left '{left}' and had made {made}")

    def _life(self, befalls: str, at: int, place: int, seconds: float, wanted: Payment) -> Life:
        if befalls == "nothing":
            return Life()
        if befalls in ("death", "frost"):
            return Life(at, die if befalls == "death" else freeze)
        happening = self.history.happenings(place, seconds, wanted)[befalls]
        return Life(at, lambda _: happening())

    # What must hold.

    @invariant()
    def promises_hold(self) -> None:
        self.coverage.steps += 1
        self._judge(quiet=False)

    def _judge(self, *, quiet: bool) -> None:
        found = self.world.violations(quiet=quiet)
        found += [Violation(Kind.UNEXPLAINED, f"Nobody should have seen this: {one}") for one in self.world.hands.wrong]
        if found:
            self.is_broken = True
            raise BrokenPromises(found)

    def teardown(self) -> None:
        """Let all come to rest and judge it, unless it is broken already."""
        try:
            if not self.is_broken and self.history.batches:
                self.world.come_to_rest()
                self._judge(quiet=True)
        finally:
            self._opened.__exit__(None, None, None)
