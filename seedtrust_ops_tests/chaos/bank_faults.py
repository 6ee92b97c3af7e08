"""The bank's worst day: everything that a bank can do wrong, case by case, each with what people must be told of it.

A batch meets the fault, workers and healers do what they can, then the bank is well again and all comes to rest. The
checker judges, and where people have something to do, an alert must have said so.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

from seedtrust_ops.sandbox.bank.faults import FaultKind, Method
from seedtrust_ops_tests.chaos.environment import Ground
from seedtrust_ops_tests.chaos.model.environment import HOUR, World, world_on
from seedtrust_ops_tests.chaos.model.payments import Payment, Payments
from seedtrust_ops_tests.chaos.model.runner import model_template, quick_bank_patience
from seedtrust_ops_tests.chaos.model.workers import ANSWER_SECONDS
from seedtrust_ops_tests.chaos.results_table import Row
from seedtrust_ops_tests.chaos.violations import Kind, Violation, as_row

BATCH = [Payment(number % 3, 1_000 + number, "ach" if number % 3 == 0 else "wire", None) for number in range(10)]
ACH, WIRE, IN_DOUBT = 0, 2, 1
"""Places in the batch."""
PATIENT_SECONDS = 60.0
LATE_SECONDS = 1.5
"""So much longer than an answer is waited for that a busy machine can't confuse the two."""
LATE_KINDS: tuple[FaultKind, ...] = ("answer_late_before_commit", "answer_late_after_commit", "slow_drip")
DAY = 24 * HOUR
ERRORS = (500, 502, 503, 504)
RETRY_AFTERS = ("", "0", "1", "-5", "soon", "0.25", "1e9", "Thu, 01 Jan 1970 00:00:00 GMT")
"""No header, sound ones, and absurd ones; the absurdly long ones are waited for, and have a test of their own."""


@dataclass(frozen=True)
class Scene:
    """A world with one queued batch in it: three cases' payments, every third an ACH."""

    world: World
    batch_id: int
    ids: list[int]

    def process(self) -> None:
        """Let a worker process the batch."""
        self.world.process(self.batch_id)

    def leave_in_doubt(self, place: int) -> None:
        """Have the bank make one of the transfers, and give neither an answer nor one to the look-ups."""
        self.world.bank.order_fault("reset_after_commit", method="POST", reference=str(self.ids[place]))
        self.world.bank.order_fault("error_before_commit", method="GET", times=3)


@dataclass(frozen=True)
class BadDay:
    """One case: what befalls the batch, and the rule of the alert by which people must have been told, if they must."""

    fault: str
    name: str
    befalls: Callable[[Scene], None]
    told: str | None = None
    is_late: bool = False
    """Whether the bank's answers come late; on all other days nobody is to take a slow machine for that."""


def run(ground: Ground, seed: int) -> list[Row]:
    """Live through every bad day; nothing in it is left to chance, so that the seed changes nothing."""
    lived = groupby(live_through_all(ground), key=lambda one: one[0].fault)
    return [_row(fault, list(days)) for fault, days in lived]


def _row(fault: str, days: list[tuple[BadDay, list[Violation]]]) -> Row:
    return as_row(f"bank: {fault}", len(days), [violation for _, found in days for violation in found])


def live_through_all(ground: Ground) -> Iterator[tuple[BadDay, list[Violation]]]:
    """Yield each bad day with what is wrong after it."""
    with model_template(ground) as template, quick_bank_patience():
        for day in BAD_DAYS:
            yield day, live_through(ground, template, day)


def live_through(ground: Ground, template: str, day: BadDay) -> list[Violation]:
    """Let a batch meet the fault in a world of its own; return what is wrong afterwards."""
    answer_seconds = ANSWER_SECONDS if day.is_late else PATIENT_SECONDS
    with world_on(ground, template, ground.banks, answer_seconds=answer_seconds) as world:
        batch_id = Payments(world.company).new_batch(BATCH, world.now())
        day.befalls(Scene(world, batch_id, [one.id for one in world.company.transactions(batch_id)]))
        world.process(batch_id)
        world.heal()
        world.come_to_rest()
        found = world.violations(quiet=True)
        found += [Violation(Kind.UNEXPLAINED, f"Nobody should have seen this: {one}") for one in world.hands.wrong]
        if day.told is not None and not world.sql("select 1 from ops.alerts where rule = :rule", rule=day.told):
            found.append(Violation(Kind.UNEXPLAINED, f"No alert {day.told} told people what to do."))
        return found


def _fault(kind: FaultKind, *, method: Method | None, times: int | None, **options: Any) -> Callable[[Scene], None]:
    def order(scene: Scene) -> None:
        scene.world.bank.order_fault(kind, method=method, times=times, **options)

    return order


def _storms() -> Iterator[BadDay]:
    silences: tuple[tuple[str, FaultKind, dict[str, Any]], ...] = (
        ("timeouts before the commit", "answer_late_before_commit", {"seconds": LATE_SECONDS}),
        ("timeouts after the commit", "answer_late_after_commit", {"seconds": LATE_SECONDS}),
        ("answers that drip", "slow_drip", {"seconds": 0.05}),
        ("resets before the commit", "reset_before_commit", {}),
        ("resets after the commit", "reset_after_commit", {}),
        *((f"HTTP {code} before the commit", "error_before_commit", {"status": code}) for code in ERRORS),
        *((f"HTTP {code} after the commit", "error_after_commit", {"status": code}) for code in ERRORS),
        ("garbage", "garbage", {}),
        ("answers of another request", "answer_of_another", {}),
    )
    for fault, kind, options in silences:
        late = kind in LATE_KINDS
        yield BadDay(fault, "once", _fault(kind, method="POST", times=1, **options), is_late=late)
        yield BadDay(fault, "to four look-ups", _fault(kind, method="GET", times=4, **options), is_late=late)
        everything = _fault(kind, method=None, times=None, **options)
        yield BadDay(fault, "to everything", everything, "bank_silent", is_late=late)
    methods: tuple[Method, ...] = ("POST", "GET")
    for method in methods:
        yield BadDay("answers that come twice", f"to {method}", _fault("answered_twice", method=method, times=None))
    for method in methods:
        refused = _fault("unauthorized", method=method, times=6)
        yield BadDay("a refused key", f"to {method}", refused, "bank_unauthorized")
    for text in RETRY_AFTERS:
        once = _fault("rate_limited", method="POST", times=1, retry_after=text)
        yield BadDay("429", f"once, Retry-After '{text}'", once)
    for text in ("", "0"):
        storm = _fault("rate_limited", method=None, times=40, retry_after=text)
        yield BadDay("429", f"forty times, Retry-After '{text}'", storm)


def _restored_from_a_backup(scene: Scene, *, in_doubt: bool) -> None:
    """The bank takes the whole batch, says nothing of one transfer perhaps, and is then put back by an hour."""
    world = scene.world
    # The feed has been read before, as it is every minute.
    world.bank.plant_transfer("a stranger's", 100)
    world.heal()
    world.bank.back_up("an-hour-ago")
    world.clocks.pass_time(HOUR / 2)
    if in_doubt:
        scene.leave_in_doubt(3)
    scene.process()
    world.clocks.pass_time(HOUR / 2)
    world.bank.restore("an-hour-ago")
    world.heal()


def _forgets_a_key(scene: Scene, *, of: int) -> None:
    scene.leave_in_doubt(IN_DOUBT)
    scene.process()
    scene.world.bank.forget(f"seedtrust-transaction-{scene.ids[of]}")


def _clock_is_off(scene: Scene, *, ahead_seconds: float) -> None:
    """An ACH comes back at a bank whose clock is not ours."""
    world = scene.world
    if ahead_seconds > 0:
        world.clocks.jump_bank(ahead_seconds)
    else:
        world.clocks.jump_database(-ahead_seconds)
    scene.process()
    world.heal()
    world.bank.settle()
    world.heal()
    world.bank.return_reference(str(scene.ids[ACH]), "R03")
    world.heal()


def _down_for_an_hour(scene: Scene, *, kind: FaultKind) -> None:
    world = scene.world
    world.bank.order_fault(kind, times=None)
    for _ in range(6):
        scene.process()
        world.clocks.pass_time(HOUR / 6)
        world.heal()
    world.bank.clear_faults()


def _memories() -> Iterator[BadDay]:
    told = "transfer_forgotten_by_bank"
    for in_doubt, name in ((False, "all had been confirmed"), (True, "one was in doubt")):
        restored = partial(_restored_from_a_backup, in_doubt=in_doubt)
        yield BadDay("restored from an hour-old backup", name, restored, told)
    yield BadDay("forgets a key", "of an accepted transfer", partial(_forgets_a_key, of=ACH), told)
    yield BadDay("forgets a key", "of one in doubt", partial(_forgets_a_key, of=IN_DOUBT), "transfer_ambiguous")
    yield BadDay("forgets a key", "of a completed transfer", partial(_forgets_a_key, of=WIRE))
    for ahead in (HOUR / 2, 3 * HOUR, 3 * DAY, 365 * DAY, -HOUR / 2, -3 * HOUR, -3 * DAY):
        name = f"{abs(ahead) / HOUR:g} hours {'ahead' if ahead > 0 else 'behind'}"
        yield BadDay("a clock that is off", name, partial(_clock_is_off, ahead_seconds=ahead))
    kinds: tuple[FaultKind, ...] = ("reset_before_commit", "error_before_commit", "garbage")
    for kind in kinds:
        yield BadDay("down for an hour", kind, partial(_down_for_an_hour, kind=kind), "bank_silent")


BAD_DAYS = (*_storms(), *_memories())
