"""The cases that run on a mutated copy of the product: `python -m ...`, started in the copy's folder by `mutations`.

It reads the servers' addresses from standard input and prints the violations, as JSON.
"""

import json
import sys
from pathlib import Path

from sqlalchemy.engine import make_url

import seedtrust_ops
from seedtrust_ops_tests.chaos.bank_pool import serve_bank_pool
from seedtrust_ops_tests.chaos.crash_points import (
    RECORD_RESPONSES_STEP,
    START_ATTEMPTS_STEP,
    KillDuringRequest,
    run_kill_case,
)
from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.chaos.frozen_workers import run_freeze_case
from seedtrust_ops_tests.chaos.human_acts import HUMAN_ACTS, HumanAct, run_human_act
from seedtrust_ops_tests.chaos.injection_points import InjectionPoint
from seedtrust_ops_tests.chaos.shards import CaseResult, Shard, collect_results, run_in_shards
from seedtrust_ops_tests.chaos.template_batch import COMPLETED, template_with_batch
from seedtrust_ops_tests.chaos.transfer_cases import Scenario, run_case

SCENARIO = Scenario("a copy of the product", "process")
CRASHES = (
    InjectionPoint("the request for transaction 1 is sent", 1, is_after=True),
    InjectionPoint("the request for transaction 1 gets its response", 1, is_after=True),
    InjectionPoint(RECORD_RESPONSES_STEP, 1, is_after=True),
)
KILLS = (KillDuringRequest(COMPLETED, is_committed=False, seconds=20),)
"""Longer than recovery takes: the bank commits the killed worker's request after another worker has asked again."""
FREEZES = (InjectionPoint(START_ATTEMPTS_STEP, 1, is_after=True),)


def main() -> None:
    """Run every case and print the violations by case."""
    here = Path.cwd()
    assert here in Path(str(seedtrust_ops.__file__)).parents, "The product was not loaded from the copy."
    arguments = json.load(sys.stdin)
    folder = Path(arguments["folder"])
    kills = KILLS if arguments["bank_is_slow"] else ()
    with serve_bank_pool(folder) as banks:
        environment = ChaosEnvironment(
            make_url(arguments["server"]), arguments["template"], banks, None, arguments["field_key"], folder
        )
        with template_with_batch(environment) as template:

            def run(shard: Shard, case: InjectionPoint | KillDuringRequest | HumanAct) -> CaseResult | str:
                if isinstance(case, HumanAct):
                    return run_human_act(shard, template, case)
                if isinstance(case, KillDuringRequest):
                    return run_kill_case(shard, template, case)
                if case in FREEZES:
                    return run_freeze_case(shard, template, case)
                return run_case(shard, template, SCENARIO, case)

            result = collect_results(
                SCENARIO.name, run_in_shards(environment, (*kills, *CRASHES, *FREEZES, *HUMAN_ACTS), run)
            )
    cases = {one.case: [str(violation) for violation in one.violations] for one in result.cases}
    sys.stdout.write(json.dumps({"cases": cases, "unreached": result.unreached}) + "\n")


if __name__ == "__main__":
    main()
