"""Part `bank`: everything that a bank can do wrong, case by case, each with the alert that must report it.

A batch meets the fault, workers process and heal, then the bank works again and everything settles. The invariants are
checked, and if people have something to do, an alert must have said so.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, get_args

from seedtrust_ops.sandbox.bank.admin_actions import Status
from seedtrust_ops.sandbox.bank.control_client import ODD_ROWS
from seedtrust_ops.sandbox.bank.faults import FaultKind, Method
from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.chaos.model.payments import Payment, Payments
from seedtrust_ops_tests.chaos.model.runner import model_template, short_rate_limit_waits
from seedtrust_ops_tests.chaos.model.simulation import HOUR, Simulation, open_simulation
from seedtrust_ops_tests.chaos.model.workers import RESPONSE_TIMEOUT_SECONDS
from seedtrust_ops_tests.chaos.results_table import Row
from seedtrust_ops_tests.chaos.violations import Violation, ViolationKind, build_row

BATCH = [Payment(number % 3, 1_000 + number, "ach" if number % 3 == 0 else "wire", None) for number in range(10)]
ACH, WIRE, UNKNOWN = 0, 2, 1
"""Indexes into the batch."""
NOBODYS_NUMBER = "987654321"
LONG_TIMEOUT_SECONDS = 60.0
LATE_SECONDS = 1.5
"""How long a late response takes: so much longer than the timeout that a busy machine cannot confuse the two."""
LATE_KINDS: tuple[FaultKind, ...] = ("late_response_before_commit", "late_response_after_commit", "slow_drip")
DAY = 24 * HOUR
SERVER_ERRORS = (500, 502, 503, 504)
RETRY_AFTER_VALUES = ("", "0", "1", "-5", "soon", "0.25", "1e9", "Thu, 01 Jan 1970 00:00:00 GMT")
"""No header, valid ones, and absurd ones. Absurdly long ones make the product wait and are tested separately."""


@dataclass(frozen=True)
class BankBatch:
    """A simulation with one queued batch: payments of three cases, every third one an ACH transfer."""

    simulation: Simulation
    batch_id: int
    ids: list[int]

    def process(self) -> None:
        """Let a worker process the batch."""
        self.simulation.process(self.batch_id)

    def leave_unknown(self, index: int) -> None:
        """Have the bank commit one of the transfers without a response, and fail the lookups for it."""
        self.simulation.bank.inject_fault("reset_after_commit", method="POST", reference=str(self.ids[index]))
        self.simulation.bank.inject_fault("error_before_commit", method="GET", path="/v1/transfers", times=3)


@dataclass(frozen=True)
class BankFaultCase:
    """One case: how the fault is injected, and the rule of the alert that must report it, if any."""

    scenario: str
    name: str
    inject: Callable[[BankBatch], None]
    expected_alert: str | None = None
    is_late: bool = False
    """Whether responses come late. In all other cases the timeout is long, so a slow machine cannot look like that."""


def run(environment: ChaosEnvironment, seed: int) -> list[Row]:
    """Run every case and return a row per scenario; nothing is random, so the seed changes nothing."""
    results = groupby(run_all_cases(environment), key=lambda one: one[0].scenario)
    return [_build_row(scenario, list(cases)) for scenario, cases in results]


def _build_row(scenario: str, results: list[tuple[BankFaultCase, list[Violation]]]) -> Row:
    return build_row(f"bank: {scenario}", len(results), [one for _, violations in results for one in violations])


def run_all_cases(environment: ChaosEnvironment) -> Iterator[tuple[BankFaultCase, list[Violation]]]:
    """Yield each case with its violations."""
    with model_template(environment) as template, short_rate_limit_waits():
        for case in CASES:
            yield case, run_case(environment, template, case)


def run_case(environment: ChaosEnvironment, template: str, case: BankFaultCase) -> list[Violation]:
    """Let a batch meet the fault in a simulation of its own; return the violations afterwards."""
    timeout = RESPONSE_TIMEOUT_SECONDS if case.is_late else LONG_TIMEOUT_SECONDS
    with open_simulation(environment, template, environment.banks, response_timeout_seconds=timeout) as simulation:
        batch_id = Payments(simulation.company).new_batch(BATCH, simulation.now())
        case.inject(BankBatch(simulation, batch_id, [one.id for one in simulation.company.transactions(batch_id)]))
        simulation.process(batch_id)
        simulation.heal()
        simulation.run_until_settled()
        violations = simulation.violations(is_final=True)
        violations += simulation.unexpected_errors()
        opened = "select 1 from ops.alerts where rule = :rule"
        if case.expected_alert is not None and not simulation.sql(opened, rule=case.expected_alert):
            violations.append(
                Violation(ViolationKind.UNEXPLAINED, f"No alert {case.expected_alert} told people what to do.")
            )
        return violations


def _fault(kind: FaultKind, *, method: Method | None, times: int | None, **options: Any) -> Callable[[BankBatch], None]:
    def inject(batch: BankBatch) -> None:
        batch.simulation.bank.inject_fault(kind, method=method, times=times, **options)

    return inject


def _response_faults() -> Iterator[BankFaultCase]:
    faults: tuple[tuple[str, FaultKind, dict[str, Any]], ...] = (
        ("timeouts before the commit", "late_response_before_commit", {"seconds": LATE_SECONDS}),
        ("timeouts after the commit", "late_response_after_commit", {"seconds": LATE_SECONDS}),
        ("slow-drip responses", "slow_drip", {"seconds": 0.05}),
        ("connection resets before the commit", "reset_before_commit", {}),
        ("connection resets after the commit", "reset_after_commit", {}),
        *((f"HTTP {code} before the commit", "error_before_commit", {"status": code}) for code in SERVER_ERRORS),
        *((f"HTTP {code} after the commit", "error_after_commit", {"status": code}) for code in SERVER_ERRORS),
        ("unreadable responses", "garbage", {}),
        ("responses to another request", "swapped_response", {}),
    )
    for scenario, kind, options in faults:
        late = kind in LATE_KINDS
        yield BankFaultCase(scenario, "once", _fault(kind, method="POST", times=1, **options), is_late=late)
        yield BankFaultCase(
            scenario,
            "to four lookups",
            _fault(kind, method="GET", path="/v1/transfers", times=4, **options),
            is_late=late,
        )
        everything = _fault(kind, method=None, times=None, **options)
        yield BankFaultCase(scenario, "to everything", everything, "bank_silent", is_late=late)
    methods: tuple[Method, ...] = ("POST", "GET")
    for method in methods:
        yield BankFaultCase(
            "duplicate responses", f"to {method}", _fault("duplicate_response", method=method, times=None)
        )
    for method in methods:
        unauthorized = _fault("unauthorized", method=method, times=6)
        yield BankFaultCase("rejected API key", f"to {method}", unauthorized, "bank_unauthorized")
    for text in RETRY_AFTER_VALUES:
        once = _fault("rate_limited", method="POST", times=1, retry_after=text)
        yield BankFaultCase("HTTP 429", f"once, Retry-After '{text}'", once)
    for text in ("", "0"):
        repeated = _fault("rate_limited", method=None, times=40, retry_after=text)
        yield BankFaultCase("HTTP 429", f"forty times, Retry-After '{text}'", repeated)


def _restore_from_backup(batch: BankBatch, *, with_unknown: bool) -> None:
    """The bank accepts the batch, possibly without responding for one transfer, and is then restored to an hour ago."""
    simulation = batch.simulation
    # The feed has been read before, as it is every minute.
    simulation.bank.insert_transfer("another customer's", 100)
    simulation.heal()
    simulation.bank.back_up("an-hour-ago")
    simulation.clocks.pass_time(HOUR / 2)
    if with_unknown:
        batch.leave_unknown(3)
    batch.process()
    simulation.clocks.pass_time(HOUR / 2)
    simulation.bank.restore("an-hour-ago")
    simulation.heal()


def _lose_key(batch: BankBatch, *, index: int) -> None:
    batch.leave_unknown(UNKNOWN)
    batch.process()
    batch.simulation.bank.forget_key(f"seedtrust-transaction-{batch.ids[index]}")


def _shift_clock(batch: BankBatch, *, ahead_seconds: float) -> None:
    """An ACH transfer is returned at a bank whose clock differs from ours."""
    simulation = batch.simulation
    if ahead_seconds > 0:
        simulation.clocks.jump_bank(ahead_seconds)
    else:
        simulation.clocks.jump_database(-ahead_seconds)
    batch.process()
    simulation.heal()
    simulation.bank.settle()
    simulation.heal()
    simulation.bank.return_reference(str(batch.ids[ACH]), "R03")
    simulation.heal()


def _fail_for_an_hour(batch: BankBatch, *, kind: FaultKind) -> None:
    simulation = batch.simulation
    simulation.bank.inject_fault(kind, times=None)
    for _ in range(6):
        batch.process()
        simulation.clocks.pass_time(HOUR / 6)
        simulation.heal()
    simulation.bank.clear_faults()


def _add_unknown_transfers(batch: BankBatch, *, status: Status) -> None:
    """Transfers that nobody at SeedTrust made: under a foreign reference, nobody's number, and a transaction's."""
    for reference in ("another customer's invoice", NOBODYS_NUMBER, str(batch.ids[WIRE])):
        batch.simulation.bank.add_unknown_transfer(reference, 100, method="ach", status=status)


def _misreport(batch: BankBatch, *, fields: Mapping[str, object]) -> None:
    """The bank reports one transfer oddly, for hours: nobody can read it, and all others are settled meanwhile."""
    simulation = batch.simulation
    simulation.bank.misreport(str(batch.ids[ACH]), fields)
    for _ in range(2):
        batch.process()
        simulation.clocks.pass_time(HOUR)
        simulation.bank.settle()
        simulation.heal()
    others = [one.status for one in simulation.company.transactions(batch.batch_id) if one.id != batch.ids[ACH]]
    assert set(others) == {"completed"}, f"One odd row held up other transfers: {others}."


def _refuse_service(batch: BankBatch) -> None:
    """One transfer draws only errors, for hours, while the others go through."""
    simulation = batch.simulation
    simulation.bank.inject_fault(
        "error_before_commit", times=None, method="POST", reference=str(batch.ids[WIRE]), status=500
    )
    for _ in range(6):
        batch.process()
        simulation.clocks.pass_time(HOUR)
        simulation.heal()


def _run_dry(batch: BankBatch, *, share: float) -> None:
    """The account has only a share of what the batch needs: nothing is sent, and the batch waits for funds."""
    simulation = batch.simulation
    simulation.change_funds(int(share * sum(one.cents for one in BATCH)))
    simulation.forbid("low funds", "the funding account did not cover its batch")
    for _ in range(3):
        batch.process()
        simulation.evaluate_health()
        simulation.clocks.pass_time(HOUR)
        simulation.heal()
    simulation.allow("low funds")


def _foreign_faults() -> Iterator[BankFaultCase]:
    for name, fields in ODD_ROWS.items():
        yield BankFaultCase("odd rows", name, partial(_misreport, fields=fields), "bank_transfer_unreadable")
    for share in (0, 0.3, 0.99):
        run_dry = partial(_run_dry, share=share)
        yield BankFaultCase("low funds", f"{share:.0%} of what a batch needs", run_dry, "insufficient_funding")
    for status in get_args(Status):
        add_transfers = partial(_add_unknown_transfers, status=status)
        yield BankFaultCase("transfers that are not ours", status, add_transfers, "unknown_transfer")
    yield BankFaultCase("only errors for one transfer", "for hours", _refuse_service, "transfer_undeliverable")


def _state_faults() -> Iterator[BankFaultCase]:
    forgotten = "transfer_forgotten_by_bank"
    for with_unknown, name in ((False, "all had been confirmed"), (True, "one was unknown")):
        restore = partial(_restore_from_backup, with_unknown=with_unknown)
        yield BankFaultCase("restored from an hour-old backup", name, restore, forgotten)
    lost_key = "loses an idempotency key"
    yield BankFaultCase(lost_key, "of an accepted transfer", partial(_lose_key, index=ACH), forgotten)
    yield BankFaultCase(lost_key, "of an unknown one", partial(_lose_key, index=UNKNOWN), "transfer_ambiguous")
    yield BankFaultCase(lost_key, "of a completed transfer", partial(_lose_key, index=WIRE))
    for ahead in (HOUR / 2, 3 * HOUR, 3 * DAY, 365 * DAY, -HOUR / 2, -3 * HOUR, -3 * DAY):
        name = f"{abs(ahead) / HOUR:g} hours {'ahead' if ahead > 0 else 'behind'}"
        yield BankFaultCase("wrong clock", name, partial(_shift_clock, ahead_seconds=ahead))
    kinds: tuple[FaultKind, ...] = ("reset_before_commit", "error_before_commit", "garbage")
    for kind in kinds:
        yield BankFaultCase("down for an hour", kind, partial(_fail_for_an_hour, kind=kind), "bank_silent")


CASES = (*_response_faults(), *_state_faults(), *_foreign_faults())
