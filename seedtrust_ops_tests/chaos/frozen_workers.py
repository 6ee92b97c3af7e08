"""Part `freezes`: a worker freezes at a step until its lease has expired and another worker has finished, then resumes.

In the meantime a disbursement request whose payment has not left is denied: if the resumed worker still pays it, the
promise is broken even if the bank deduplicates by key.
"""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import psutil
from sqlalchemy import text

from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.chaos.faults import Fault
from seedtrust_ops_tests.chaos.injection_points import InjectionPoint
from seedtrust_ops_tests.chaos.invariants import SendBan, last_request_id
from seedtrust_ops_tests.chaos.recovery import recover
from seedtrust_ops_tests.chaos.shards import (
    CaseResult,
    ScenarioResult,
    Shard,
    collect_results,
    open_shard,
    run_in_shards,
)
from seedtrust_ops_tests.chaos.tasks import Task
from seedtrust_ops_tests.chaos.template_batch import SENT, template_with_batch
from seedtrust_ops_tests.chaos.transfer_cases import (
    MAX_TRIES,
    Scenario,
    TransferCase,
    find_injection_points,
    open_case,
    recover_and_check,
)
from seedtrust_ops_tests.chaos.worker_processes import TIMEOUT_SECONDS, WorkerProcess, start_worker
from seedtrust_ops_tests.support.waiters import wait_until

LEASE_SECONDS = 2.0
"""Short, because each case waits for it: a lease expired by an UPDATE would not expire by the worker's own clock."""
SCENARIO = Scenario("worker freezes at each step and resumes after its lease", "process")


def run_freeze_case(shard: Shard, template: str, point: InjectionPoint) -> CaseResult | str:
    """Run one case from freeze to verdict; return only its name if the injection point was not reached."""
    name = f"froze {point}"
    for _ in range(MAX_TRIES):
        with (
            open_case(shard, template, lease_seconds=LEASE_SECONDS) as case,
            start_worker(Task(SCENARIO.task_name, case.config, point, fault=Fault.FREEZE)) as worker,
        ):
            if not _wait_until_frozen(worker):
                continue
            _wait_until_lease_expires(case)
            ban = _deny_unsent_request(case)
            recover(case.sessions, replace(case.config, lease_seconds=30))
            os.kill(worker.pid, signal.SIGCONT)
            result = worker.wait()
            # A request that had passed the product's last check before the freeze can no longer be stopped.
            bans = [replace(ban, exempt_ids=result.leaving_when_injected)] if ban and result else []
            return CaseResult(name, recover_and_check(case, bans))
    return name


def _wait_until_frozen(worker: WorkerProcess) -> bool:
    """Wait until the worker is frozen or has ended; return whether it is frozen."""
    wait_until(
        lambda: worker.has_message or _is_stopped(worker.pid),
        seconds=TIMEOUT_SECONDS,
        what="the worker to freeze",
    )
    return not worker.has_message


def _is_stopped(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        # It has ended, and its messages can still be received.
        return False


def _wait_until_lease_expires(case: TransferCase) -> None:
    def is_expired() -> bool:
        live = "select count(*) from ops.batch_leases where token is not null and expires_at > clock_timestamp()"
        with case.sessions() as session:
            return not session.scalar(text(live))

    wait_until(is_expired, what="the lease to expire")


def _deny_unsent_request(case: TransferCase) -> SendBan | None:
    """Deny the first disbursement request whose payment has not left, even if the worker is about to send it."""
    bank = case.banks.control
    seen = {one["reference"] for one in bank.requests()}
    unsent = [one for one in SENT if str(one) not in seen]
    if not unsent:
        return None
    denial = """
        update disbursement_requests set status = 'denied'
         where id = (select disbursement_request_id from huntington_transactions where id = :transaction_id)
    """
    with case.sessions.begin() as session:
        session.execute(text(denial), {"transaction_id": unsent[0]})
    return SendBan(
        "its disbursement request had been denied", last_request_id(bank), transaction_ids=frozenset(unsent[:1])
    )


def freeze_at_each_step(environment: ChaosEnvironment, *, one_in: int = 1) -> ScenarioResult:
    """Run every case, or only one in `one_in`."""
    with template_with_batch(environment) as template:
        with open_shard(environment) as shard:
            points = find_injection_points(shard, template, SCENARIO)[::one_in]
        return collect_results(
            SCENARIO.name,
            run_in_shards(environment, points, lambda shard, point: run_freeze_case(shard, template, point)),
        )


def run_all(environment: ChaosEnvironment) -> Iterator[ScenarioResult]:
    """Run every scenario of this part."""
    yield freeze_at_each_step(environment)
