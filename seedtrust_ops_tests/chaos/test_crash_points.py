"""Whatever step crashes or fails: money moves once, and SeedTrust's statuses become what the bank says."""

from collections.abc import Iterable, Iterator

import pytest
from _pytest.mark import ParameterSet

from seedtrust_ops_tests.chaos.assertions import assert_clean
from seedtrust_ops_tests.chaos.crash_points import SCENARIOS as CRASH_SCENARIOS
from seedtrust_ops_tests.chaos.database_faults import SCENARIOS as DATABASE_SCENARIOS
from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.chaos.job_crash_points import SCENARIOS as JOB_SCENARIOS
from seedtrust_ops_tests.chaos.job_crash_points import JobScenario, run_job_scenario
from seedtrust_ops_tests.chaos.transfer_cases import Scenario, run_scenario
from seedtrust_ops_tests.support.tiers import long_version

# Each test runs many cases, on a machine that may be busy.
pytestmark = pytest.mark.timeout(900)
FILE = "chaos/test_crash_points.py"
SAMPLE = 24
"""The default tier runs one step in so many of each scenario, the slow tier every step."""


def _samples(scenarios: Iterable[Scenario | JobScenario], of: str) -> Iterator[ParameterSet]:
    for scenario in scenarios:
        name = scenario.name.replace(" ", "-") if isinstance(scenario, Scenario) else scenario.task_name
        yield pytest.param(scenario, SAMPLE, id=f"{name}-sample")
        yield pytest.param(scenario, 1, id=f"{name}-every-step", marks=long_version(of=of))


@pytest.mark.parametrize(
    ("scenario", "one_in"),
    _samples([*CRASH_SCENARIOS, *DATABASE_SCENARIOS], f"{FILE}::test_worker_fault_at_any_step_moves_money_once"),
)
def test_worker_fault_at_any_step_moves_money_once(
    environment: ChaosEnvironment, scenario: Scenario, one_in: int
) -> None:
    assert_clean(run_scenario(environment, scenario, one_in=one_in))


@pytest.mark.parametrize(
    ("scenario", "one_in"),
    _samples(JOB_SCENARIOS, f"{FILE}::test_job_crash_at_any_step_loses_no_approval_report_or_email"),
)
def test_job_crash_at_any_step_loses_no_approval_report_or_email(
    environment: ChaosEnvironment, scenario: JobScenario, one_in: int
) -> None:
    assert_clean(run_job_scenario(environment, scenario, one_in=one_in))
