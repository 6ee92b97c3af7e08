"""Whatever the bank does wrong, nothing is paid twice or lost, and an alert tells people what to do."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

import seedtrust_ops
from seedtrust_ops_tests.chaos.bank_faults import CASES, BankFaultCase, run_case
from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.chaos.model.runner import model_template, short_rate_limit_waits
from seedtrust_ops_tests.support.tiers import long_version

WORST_CASES = "chaos/test_bank_faults.py::test_bank_fault_leaves_books_correct_and_alerts_people"
RUNBOOK = Path(seedtrust_ops.__file__).parent.parent / "docs" / "runbook.md"


@pytest.fixture(scope="module")
def template(environment: ChaosEnvironment) -> Iterator[str]:
    with model_template(environment) as template, short_rate_limit_waits():
        yield template


def _cases() -> Iterator[ParameterSet]:
    """The last case of each scenario, which is the worst for the bank, and the others as long versions of it.

    Of the scenarios that differ by their HTTP status only, the one with 500.
    """
    last = {case.scenario: case for case in CASES if not re.search("HTTP 50[234]", case.scenario)}
    for case in CASES:
        marks = () if case in last.values() else long_version(of=WORST_CASES)
        yield pytest.param(case, id=f"{case.scenario}, {case.name}".replace(" ", "-"), marks=marks)


@pytest.mark.parametrize("case", _cases())
def test_bank_fault_leaves_books_correct_and_alerts_people(
    environment: ChaosEnvironment, template: str, case: BankFaultCase
) -> None:
    assert run_case(environment, template, case) == []


def test_bank_fault_alerts_are_in_the_runbook() -> None:
    rules = {case.expected_alert for case in CASES} - {None}
    assert len(rules) >= 4
    assert [rule for rule in rules if f"| `{rule}` |" not in RUNBOOK.read_text()] == []
