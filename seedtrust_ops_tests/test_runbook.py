"""The runbook names every alert rule and every failure that a person can be shown.

It reads the package's source, so a new rule or failure without a line in the runbook fails here.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import seedtrust_ops

PACKAGE = Path(seedtrust_ops.__file__).parent
RUNBOOK = PACKAGE.parent / "docs" / "runbook.md"
BASES = {"OperationsError", "PassingTrouble"}


def _modules() -> Iterator[ast.Module]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if "sandbox" not in path.parts:
            yield ast.parse(path.read_text())


def _alert_rules() -> set[str]:
    calls = (node for module in _modules() for node in ast.walk(module) if isinstance(node, ast.Call))
    rules = set()
    for call in calls:
        if isinstance(call.func, ast.Name) and call.func.id == "open_alert":
            rule = call.args[1]
            assert isinstance(rule, ast.Constant), "an alert's rule is written where it is opened"
            rules.add(str(rule.value))
    return rules


def _failures() -> set[str]:
    classes = [node for module in _modules() for node in ast.walk(module) if isinstance(node, ast.ClassDef)]
    return {
        one.name
        for one in classes
        if any(isinstance(base, ast.Name) and base.id in BASES for base in one.bases) and one.name not in BASES
    }


@pytest.mark.parametrize("name", sorted(_alert_rules() | _failures()))
def test_runbook_says_what_to_do(name: str) -> None:
    assert f"`{name}`" in RUNBOOK.read_text()


def test_there_are_rules_and_failures_to_look_for() -> None:
    assert "bank_unauthorized" in _alert_rules()
    assert "UnknownBatch" in _failures()
