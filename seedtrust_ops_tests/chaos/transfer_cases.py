"""One case with a batch of transfers: its own database and bank, a worker that meets a fault, and the recovery.

Which fault is injected where is defined by the scenarios in `crash_points`, `frozen_workers` and `database_faults`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from seedtrust_ops.sandbox.bank.control_client import SandboxBank
from seedtrust_ops_tests.chaos.bank_pool import BankPool
from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.chaos.faults import Fault
from seedtrust_ops_tests.chaos.injection_points import LEASE_RENEWAL_STEPS, InjectionPoint, list_injection_points
from seedtrust_ops_tests.chaos.invariants import SendBan, check_invariants
from seedtrust_ops_tests.chaos.recovery import Sessions, evaluate_health, recover
from seedtrust_ops_tests.chaos.shards import (
    CaseResult,
    ScenarioResult,
    Shard,
    collect_results,
    open_shard,
    run_in_shards,
)
from seedtrust_ops_tests.chaos.tasks import Task
from seedtrust_ops_tests.chaos.template_batch import RETURNED, prepare_bank, template_with_batch
from seedtrust_ops_tests.chaos.violations import Violation
from seedtrust_ops_tests.chaos.worker_config import WorkerConfig
from seedtrust_ops_tests.chaos.worker_processes import run_worker

MAX_TRIES = 3
"""How often a case is tried until its injection point is reached: a busy machine may run other steps."""


@dataclass(frozen=True)
class TransferCase:
    """One case's bank and database: how the worker reaches them, and how the test does."""

    config: WorkerConfig
    banks: BankPool
    sessions: Sessions


@dataclass(frozen=True)
class Scenario:
    """One fault in one task, run once per injection point.

    `name` is the label in the results table, `prepare` runs before the worker starts, `event` says in a case's name
    what happened to the worker, and `statements` and `is_persistent` are as in `Task`.
    """

    name: str
    task_name: str
    concurrency: int = 1
    prepare: Callable[[TransferCase], None] = lambda _: None
    fault: Fault = Fault.CRASH
    event: str = "crashed"
    statements: tuple[str, ...] = ()
    is_persistent: bool = False
    sides: tuple[bool, ...] = (False, True)
    step_prefix: str = ""
    """Only steps whose label starts with this are injection points; empty for all."""


@contextmanager
def open_case(
    shard: Shard,
    template: str,
    *,
    first_fault: dict[str, Any] | None = None,
    **config: Any,
) -> Iterator[TransferCase]:
    """Set up a case: the batch of eight is queued, and the bank knows how to treat each transfer."""
    with shard.database(template) as (database, sessions):
        banks = shard.banks
        prepare_bank(banks, **(first_fault or {}))
        worker_config = WorkerConfig(
            database, banks.url, banks.api_key, banks.funding_account_id, shard.environment.field_key, **config
        )
        yield TransferCase(worker_config, banks, sessions)


def find_injection_points(shard: Shard, template: str, scenario: Scenario) -> list[InjectionPoint]:
    """Record a run without a fault and return the scenario's injection points in it."""
    error = None
    for _ in range(MAX_TRIES):
        with open_case(shard, template, concurrency=scenario.concurrency) as case:
            scenario.prepare(case)
            result = run_worker(Task(scenario.task_name, case.config, statements=scenario.statements))
        assert result is not None, "A worker without an injected fault crashed."
        if (error := result.error) is None:
            points = list_injection_points(result.steps, first_only=LEASE_RENEWAL_STEPS, sides=scenario.sides)
            return [point for point in points if point.label.startswith(scenario.step_prefix)]
    raise AssertionError(f"A worker without an injected fault failed {MAX_TRIES} times, last with: {error}")


def run_case(shard: Shard, template: str, scenario: Scenario, point: InjectionPoint) -> CaseResult | str:
    """Run one case from fault to verdict; return only its name if the injection point was not reached."""
    name = f"{scenario.event} {point}"
    for _ in range(MAX_TRIES):
        with open_case(shard, template, concurrency=scenario.concurrency) as case:
            scenario.prepare(case)
            result = run_worker(
                Task(
                    scenario.task_name,
                    case.config,
                    point,
                    fault=scenario.fault,
                    is_persistent=scenario.is_persistent,
                    statements=scenario.statements,
                )
            )
            if result is None or result.fault_injected:
                return CaseResult(name, recover_and_check(case))
    return name


def run_scenario(environment: ChaosEnvironment, scenario: Scenario, *, one_in: int = 1) -> ScenarioResult:
    """Run every case of a scenario, or only one in `one_in`."""
    with template_with_batch(environment) as template:
        with open_shard(environment) as shard:
            points = find_injection_points(shard, template, scenario)[::one_in]
        return collect_results(
            scenario.name,
            run_in_shards(environment, points, lambda shard, point: run_case(shard, template, scenario, point)),
        )


def advance_bank(bank: SandboxBank) -> None:
    """Let the bank return the transfer that is meant to come back, if it has it by now, and settle the others."""
    for transfer in bank.ledger()["transfers"]:
        if transfer["reference"] == str(RETURNED) and transfer["status"] != "returned":
            bank.return_transfer(transfer["id"], "R03")
    bank.settle()


def recover_and_check(case: TransferCase, bans: Sequence[SendBan] = ()) -> list[Violation]:
    """Recover as production does, let the bank settle and return transfers, recover again, and check everything."""
    recover(case.sessions, case.config)
    advance_bank(case.banks.control)
    recover(case.sessions, case.config)
    evaluate_health(case.sessions)
    return check_invariants(case.sessions, case.banks.control, is_final=True, bans=bans)
