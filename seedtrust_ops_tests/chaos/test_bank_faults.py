"""Whatever the bank does wrong, nothing is paid twice or lost, and an alert tells people what to do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import seedtrust_ops
from seedtrust_ops_tests.chaos.bank_faults import CASES, BankFaultCase, run_case
from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.chaos.model.runner import model_template, short_rate_limit_waits

RUNBOOK = Path(seedtrust_ops.__file__).parent.parent / "docs" / "runbook.md"


@pytest.fixture(scope="module")
def template(environment: ChaosEnvironment) -> Iterator[str]:
    with model_template(environment) as template, short_rate_limit_waits():
        yield template


@pytest.mark.takes_minutes
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.scenario}, {case.name}".replace(" ", "-"))
def test_bank_fault_leaves_books_correct_and_alerts_people(
    environment: ChaosEnvironment, template: str, case: BankFaultCase
) -> None:
    assert run_case(environment, template, case) == []


def test_bank_fault_alerts_are_in_the_runbook() -> None:
    rules = {case.expected_alert for case in CASES} - {None}
    assert len(rules) >= 4
    assert [rule for rule in rules if f"| `{rule}` |" not in RUNBOOK.read_text()] == []
