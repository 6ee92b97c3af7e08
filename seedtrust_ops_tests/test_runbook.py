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
RULE_ARGUMENT = {"open_alert": 1, "Finding": 0}
"""Where the rule stands in a call of each; one that is another object's attribute is named where that is made."""
BASES = {"SeedTrustError", "TransientError"}


def _modules() -> Iterator[ast.Module]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if "sandbox" not in path.parts:
            yield ast.parse(path.read_text())


def _alert_rules() -> set[str]:
    modules = list(_modules())
    constants = {
        target.id: node.value.value
        for module in modules
        for node in module.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    rules = set()
    for call in (node for module in modules for node in ast.walk(module) if isinstance(node, ast.Call)):
        place = RULE_ARGUMENT.get(call.func.id) if isinstance(call.func, ast.Name) else None
        if place is not None and not isinstance(call.args[place], ast.Attribute):
            rule = call.args[place]
            name = rule.value if isinstance(rule, ast.Constant) else constants.get(getattr(rule, "id", ""))
            assert name is not None, "an alert's rule is a string, or the name of one at the top of a module"
            rules.add(str(name))
    return rules


def _failures() -> set[str]:
    classes = [node for module in _modules() for node in ast.walk(module) if isinstance(node, ast.ClassDef)]
    return {
        one.name
        for one in classes
        if any(isinstance(base, ast.Name) and base.id in BASES for base in one.bases)
        and one.name not in BASES
        and not one.name.startswith("_")
    }


@pytest.mark.parametrize("name", sorted(_alert_rules() | _failures()))
def test_runbook_says_what_to_do(name: str) -> None:
    assert f"`{name}`" in RUNBOOK.read_text()


def test_there_are_rules_and_failures_to_look_for() -> None:
    assert {"bank_unauthorized", "schedule_missed"} <= _alert_rules()
    assert "UnknownBatch" in _failures()
