"""Whatever step crashes or fails: money moves once, and SeedTrust's statuses become what the bank says."""

import pytest

from seedtrust_ops_tests.chaos.assertions import assert_clean
from seedtrust_ops_tests.chaos.crash_points import SCENARIOS as CRASH_SCENARIOS
from seedtrust_ops_tests.chaos.database_faults import SCENARIOS as DATABASE_SCENARIOS
from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.chaos.job_crash_points import SCENARIOS as JOB_SCENARIOS
from seedtrust_ops_tests.chaos.job_crash_points import JobScenario, run_job_scenario
from seedtrust_ops_tests.chaos.transfer_cases import Scenario, run_scenario

# Each test runs many cases, on a machine that may be busy.
pytestmark = [pytest.mark.timeout(900), pytest.mark.long_chaos]


def _one_in(scenario: Scenario) -> int:
    """Run only one in so many cases of the longest scenarios; `make chaos` runs them all."""
    return 10 if scenario.statements else 3 if scenario.concurrency > 1 or scenario.step_prefix else 1


@pytest.mark.parametrize(
    "scenario", [*CRASH_SCENARIOS, *DATABASE_SCENARIOS], ids=lambda scenario: scenario.name.replace(" ", "-")
)
def test_worker_fault_at_any_step_moves_money_once(environment: ChaosEnvironment, scenario: Scenario) -> None:
    assert_clean(run_scenario(environment, scenario, one_in=_one_in(scenario)))


@pytest.mark.parametrize("scenario", JOB_SCENARIOS, ids=lambda scenario: scenario.task_name)
def test_job_crash_at_any_step_loses_no_approval_report_or_email(
    environment: ChaosEnvironment, scenario: JobScenario
) -> None:
    assert_clean(run_job_scenario(environment, scenario, one_in=4 if scenario.task_name == "report" else 2))
