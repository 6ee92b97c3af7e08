"""Runs the demo's scenarios until every transfer is settled or the deadline has passed. Output is in `report`.

Each round checks the progress of every batch and lets every disruption act that is ready to.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import func, or_, select

from seedtrust_ops.domain.transfers.batch_lifecycle import FINISHED_STATUSES
from seedtrust_ops.domain.transfers.legacy_takeover import is_false_failure
from seedtrust_ops.sandbox.demo.disruptions import (
    Steps,
    empty_funding_account,
    explain_unknown_transfer,
    halt_mid_batch,
    kill_sender,
    launch_second_run,
    reject_first_transfer,
    return_old_ach,
)
from seedtrust_ops.sandbox.demo.environment import DemoEnvironment
from seedtrust_ops.sandbox.demo.scenarios import HALTED, KILLED, LEGACY_NAME, REJECTED, TWO_RUNS, UNFUNDED, Scenario
from seedtrust_ops.tables import HuntingtonBatch, HuntingtonTransaction

ROUND_SECONDS = 0.4
OPEN_STATUSES = {"pending", "processing", "submitted", "in doubt"}


@dataclass(frozen=True)
class BatchProgress:
    """Progress of a scenario's batch: the number of transfers in each status, and why some failed."""

    scenario: Scenario
    status: str
    counts: dict[str, int]
    reasons: list[str]

    @property
    def is_settled(self) -> bool:
        """Whether the batch is finished and none of its transfers is open."""
        return self.status in FINISHED_STATUSES and not self.counts.keys() & OPEN_STATUSES


@dataclass(frozen=True)
class Outcome:
    """The final progress of all batches; `failure` is None if every scenario settled in time."""

    batches: list[BatchProgress]
    failure: str | None


def run_scenarios(
    env: DemoEnvironment,
    scenarios: Sequence[Scenario],
    *,
    print_message: Callable[[str], None],
    show_progress: Callable[[list[BatchProgress]], None],
    deadline_seconds: float,
) -> Outcome:
    """Run the scenarios and return how they ended.

    Args:
        env: where they run.
        scenarios: the drafted batches with their injected faults.
        print_message: called with a message about each disruption.
        show_progress: called after each round with the progress of all batches.
        deadline_seconds: when to stop waiting for batches to settle.
    """
    deadline = time.monotonic() + deadline_seconds
    disruptions = _start_disruptions(env, scenarios)
    try:
        while True:
            disruptions = [steps for steps in disruptions if _advance(steps, print_message)]
            batches = [_batch_progress(env, scenario) for scenario in scenarios]
            show_progress(batches)
            if not disruptions and all(batch.is_settled for batch in batches):
                return Outcome(batches, None)
            if (code := env.worker.exit_code()) is not None:
                return Outcome(batches, f"The worker exited with code {code}.")
            if time.monotonic() >= deadline:
                open_ids = [str(batch.scenario.batch.batch_id) for batch in batches if not batch.is_settled]
                settled = f"unsettled batches: {', '.join(open_ids)}" if open_ids else "all batches are settled"
                pending = f"; disruptions that never took place: {len(disruptions)}" if disruptions else ""
                return Outcome(batches, f"Timed out after {deadline_seconds:.0f} s: {settled}{pending}.")
            time.sleep(ROUND_SECONDS)
    finally:
        for steps in disruptions:
            steps.close()


def _start_disruptions(env: DemoEnvironment, scenarios: Sequence[Scenario]) -> list[Steps]:
    by_name = {scenario.name: scenario for scenario in scenarios}
    halted = by_name[HALTED.name]
    unfunded = by_name[UNFUNDED.name]
    others = [scenario for scenario in scenarios if scenario not in (halted, unfunded, by_name[LEGACY_NAME])]
    disruptions = [
        halt_mid_batch(env, halted, others),
        return_old_ach(env),
        explain_unknown_transfer(env),
        empty_funding_account(env, unfunded, [halted, *others]),
    ]
    for spec, disruption in (
        (KILLED, kill_sender),
        (TWO_RUNS, launch_second_run),
        (REJECTED, reject_first_transfer),
    ):
        if spec.name in by_name:
            disruptions.append(disruption(env, by_name[spec.name]))
    return disruptions


def _advance(steps: Steps, print_message: Callable[[str], None]) -> bool:
    """Run a disruption until it has to wait; return whether it has more to do."""
    try:
        while (message := next(steps)) is not None:
            print_message(message)
    except StopIteration:
        return False
    return True


def _batch_progress(env: DemoEnvironment, scenario: Scenario) -> BatchProgress:
    batch_id = scenario.batch.batch_id
    in_batch = HuntingtonTransaction.batch_id == batch_id
    in_doubt = is_false_failure(HuntingtonTransaction)
    with env.sessions() as session:
        status = session.scalars(select(HuntingtonBatch.status).where(HuntingtonBatch.id == batch_id)).one()
        rows = session.execute(
            select(HuntingtonTransaction.status, in_doubt.label("in_doubt"), func.count().label("number"))
            .where(in_batch)
            .group_by(HuntingtonTransaction.status, in_doubt)
        ).all()
        reasons = session.scalars(
            select(HuntingtonTransaction.failure_reason)
            .where(in_batch, or_(HuntingtonTransaction.status == "failed", HuntingtonTransaction.status == "returned"))
            .order_by(HuntingtonTransaction.id)
        ).all()
    counts = {("in doubt" if row.in_doubt else row.status): int(row.number) for row in rows}
    return BatchProgress(scenario, status, counts, [reason for reason in reasons if reason])
