"""Part `crashes`: a worker crashes just before and just after each I/O step of batch processing and of auto-heal.

Every step, not a sample: a run without a fault records which steps there are. Recovery is the product's own, and
`invariants` judges the outcome.
"""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from seedtrust_ops.domain.transfers.sender import BatchSender
from seedtrust_ops.sandbox.bank.control_client import LoggedRequest
from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.chaos.injection_points import InjectionPoint
from seedtrust_ops_tests.chaos.recovery import expire_leases, recover
from seedtrust_ops_tests.chaos.shards import CaseResult, ScenarioResult, Shard, collect_results, run_in_shards
from seedtrust_ops_tests.chaos.tasks import Task
from seedtrust_ops_tests.chaos.template_batch import SENT, template_with_batch
from seedtrust_ops_tests.chaos.transfer_cases import (
    MAX_TRIES,
    Scenario,
    TransferCase,
    advance_bank,
    open_case,
    recover_and_check,
    run_scenario,
)
from seedtrust_ops_tests.chaos.worker_processes import TIMEOUT_SECONDS, run_worker, start_worker
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.waiters import wait_until

RECORD_RESPONSES_STEP = f"commit of {BatchSender._record_now.__qualname__}"
START_ATTEMPTS_STEP = f"commit of {BatchSender._record_attempts.__qualname__}"
LEGACY_CENTS = 4_321


def leave_transfers_open(case: TransferCase) -> None:
    """Crash a worker when everything is sent and nothing is recorded, then let the bank settle and return transfers.

    A batch of the legacy worker, with a transaction that it wrongly marked as failed, is added beside it.
    """
    before_recording = InjectionPoint(RECORD_RESPONSES_STEP, 1, is_after=False)
    task = Task("process", case.config.with_concurrency(8), before_recording)
    assert run_worker(task) is None, "The worker that should have crashed before recording responses did not crash."
    expire_leases(case.sessions)
    company = Company(case.sessions, case.config.cipher)
    legacy_batch = company.batch(case=company.case(), status="completed_with_errors")
    transaction_id = company.transaction(
        legacy_batch,
        company.request(company.case(), LEGACY_CENTS),
        LEGACY_CENTS,
        status="failed",
        failure_reason="timeout: no answer from the bank",
    )
    case.banks.control.insert_transfer(str(transaction_id), LEGACY_CENTS)
    advance_bank(case.banks.control)


SCENARIOS = (
    Scenario("worker crashes at each step, one request at a time", "process"),
    Scenario("worker crashes at each step, eight concurrent requests", "process", concurrency=8),
    Scenario("auto-heal crashes at each step", "heal", prepare=leave_transfers_open),
)


@dataclass(frozen=True)
class KillDuringRequest:
    """A worker is killed while it waits for the response to one request, before or after the bank has committed.

    The bank takes `seconds` to respond: if it has not committed by the kill, it commits while other workers recover.
    """

    transaction_id: int
    is_committed: bool
    seconds: float = 1

    def __str__(self) -> str:
        """The text that a test failure shows."""
        side = "after" if self.is_committed else "before"
        return f"killed while waiting for the response to transaction {self.transaction_id}, {side} the bank's commit"


def kill_during_requests(environment: ChaosEnvironment) -> ScenarioResult:
    """Kill a worker (SIGKILL) while it waits for each of its responses."""
    cases = [KillDuringRequest(one, is_committed) for one in SENT for is_committed in (False, True)]
    with template_with_batch(environment) as template:
        return collect_results(
            "worker killed while waiting for a bank response",
            run_in_shards(environment, cases, lambda shard, kill: run_kill_case(shard, template, kill)),
        )


def run_kill_case(shard: Shard, template: str, kill: KillDuringRequest) -> CaseResult | str:
    """Run one case to its verdict; return only a name if the worker ended first, as it may on a busy machine."""
    result: CaseResult | str = ""
    for _ in range(MAX_TRIES):
        result = _try_kill_case(shard, template, kill)
        if isinstance(result, CaseResult):
            break
    return result


def _try_kill_case(shard: Shard, template: str, kill: KillDuringRequest) -> CaseResult | str:
    fault = {
        "kind": "late_response_after_commit" if kill.is_committed else "late_response_before_commit",
        "method": "POST",
        "reference": str(kill.transaction_id),
        "seconds": kill.seconds,
    }
    with open_case(shard, template, first_fault=fault) as case:
        with start_worker(Task("process", case.config)) as worker:
            wait_until(
                lambda: worker.has_message or _first_request(case, kill.transaction_id) is not None,
                seconds=TIMEOUT_SECONDS,
                what=f"the request for transaction {kill.transaction_id}",
            )
            if worker.has_message:
                return f"{kill}: the worker ended first, with {worker.wait()}"
            os.kill(worker.pid, signal.SIGKILL)
        recover(case.sessions, case.config)
        wait_until(
            lambda: _has_response(_first_request(case, kill.transaction_id)),
            seconds=kill.seconds + TIMEOUT_SECONDS,
            what="the bank to finish the killed worker's request",
        )
        return CaseResult(str(kill), recover_and_check(case))


def _first_request(case: TransferCase, transaction_id: int) -> LoggedRequest | None:
    requests = case.banks.control.requests()
    return next((one for one in requests if one["reference"] == str(transaction_id)), None)


def _has_response(request: LoggedRequest | None) -> bool:
    return request is not None and request["status"] is not None


def run_all(environment: ChaosEnvironment) -> Iterator[ScenarioResult]:
    """Run every scenario of this part."""
    for scenario in SCENARIOS:
        yield run_scenario(environment, scenario)
    yield kill_during_requests(environment)
