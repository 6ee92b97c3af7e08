"""Every alert rule and every failure that a person can see has a complete row in docs/runbook.md, and no row is stale.

Rules and failures are read from the package's source, so a new one without a row fails here. Other pages are checked
by test_docs.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import seedtrust_ops
from seedtrust_ops.domain.alerts.channel_state import WATCHDOG_RULES

PACKAGE = Path(seedtrust_ops.__file__).parent
RUNBOOK = PACKAGE.parent / "docs" / "runbook.md"
RULE_ARGUMENT = {"open_alert": 1, "Finding": 0}
"""The position of the rule in a call of each. If it is an attribute, the object it belongs to is built elsewhere."""
RUN_FAILURE = "Failure"
"""`monitoring/failure_summary.py` builds one of these for each way in which a whole run can fail."""
ROOTS = {"SeedTrustError", "TransientError", "InputError"}
COLUMNS = {
    "Rule": ("Rule", "What it means", "What it costs", "What to do"),
    "Failure": ("Failure", "What it means", "What it costs", "What to do"),
}


@dataclass(frozen=True)
class Table:
    """One Markdown table: its header cells and the cells of each row."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().removeprefix("|").removesuffix("|")))


def _is_separator(line: str) -> bool:
    return line.startswith("|") and all(re.fullmatch(r":?-+:?", cell) for cell in _cells(line))


def parse_tables(text: str) -> tuple[list[Table], list[str]]:
    """Return the tables of a Markdown page, and the lines that look like rows but belong to no table."""
    tables, strays, lines = [], [], text.splitlines()
    position = 0
    while position < len(lines):
        line = lines[position]
        if not line.startswith("|"):
            position += 1
            continue
        block = [line]
        while position + len(block) < len(lines) and lines[position + len(block)].startswith("|"):
            block.append(lines[position + len(block)])
        position += len(block)
        if len(block) > 1 and _is_separator(block[1]):
            tables.append(Table(_cells(block[0]), tuple(_cells(row) for row in block[2:])))
        else:
            strays += block
    return tables, strays


def find_table_problems(text: str) -> list[str]:
    """Return a sentence for each row that is outside a table, has another number of cells, or has an empty cell."""
    tables, strays = parse_tables(text)
    problems = [f"outside any table: {line}" for line in strays]
    for table in tables:
        wanted = COLUMNS.get(table.header[0])
        if wanted is not None and table.header != wanted:
            problems.append(f"columns {table.header} instead of {wanted}")
        problems += [
            f"{len(row)} of {len(table.header)} cells, or an empty one: {row[0]}"
            for row in table.rows
            if len(row) != len(table.header) or not all(row)
        ]
    return problems


def find_named_rows(text: str, first_column: str) -> Counter[str]:
    """Return how often each name is the first cell of a row, over all tables whose first column is `first_column`."""
    tables, _ = parse_tables(text)
    return Counter(
        row[0].strip("`") for table in tables if table.header[0] == first_column for row in table.rows if row
    )


@cache
def _modules() -> list[ast.Module]:
    return [ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py")) if "sandbox" not in path.parts]


def _string_constants(module: ast.Module) -> dict[str, str]:
    return {
        target.id: node.value.value
        for node in module.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _calls(module: ast.Module, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def alert_rules() -> set[str]:
    """Return every rule that an alert can have."""
    modules = list(_modules())
    everywhere: dict[str, set[str]] = {}
    for module in modules:
        for constant, value in _string_constants(module).items():
            everywhere.setdefault(constant, set()).add(value)
    rules = set(WATCHDOG_RULES)
    for module in modules:
        own = _string_constants(module)
        for function, position in RULE_ARGUMENT.items():
            for call in _calls(module, function):
                rule = call.args[position]
                if isinstance(rule, ast.Attribute):
                    continue
                if isinstance(rule, ast.Constant):
                    rules.add(str(rule.value))
                    continue
                name = getattr(rule, "id", "")
                found = {own[name]} if name in own else everywhere.get(name, set())
                assert found, "an alert's rule is a string, or the name of one at the top of a module"
                rules |= found
    return rules


def failures() -> set[str]:
    """Return every error class that is shown to people, and every way in which a whole run can fail."""
    modules = list(_modules())
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for module in modules
        for node in ast.walk(module)
        if isinstance(node, ast.ClassDef)
    }
    shown = set(ROOTS)
    while more := {name for name, parents in bases.items() if parents & shown} - shown:
        shown |= more
    summary = ast.parse((PACKAGE / "monitoring" / "failure_summary.py").read_text())
    of_runs = {
        str(call.args[0].value)
        for call in _calls(summary, RUN_FAILURE)
        if call.args and isinstance(call.args[0], ast.Constant)
    }
    return {name for name in shown - ROOTS if not name.startswith("_")} | of_runs


def test_tables_are_complete() -> None:
    assert find_table_problems(RUNBOOK.read_text()) == []


@pytest.mark.parametrize("rule", sorted(alert_rules()))
def test_alert_rule_has_one_row(rule: str) -> None:
    assert find_named_rows(RUNBOOK.read_text(), "Rule")[rule] == 1


@pytest.mark.parametrize("failure", sorted(failures()))
def test_failure_has_one_row(failure: str) -> None:
    assert find_named_rows(RUNBOOK.read_text(), "Failure")[failure] == 1


def test_rows_name_only_what_the_code_has() -> None:
    text = RUNBOOK.read_text()
    assert find_named_rows(text, "Rule").keys() - alert_rules() == set()
    assert find_named_rows(text, "Failure").keys() - failures() == set()


def test_sources_contain_rules_and_failures() -> None:
    assert {"bank_unauthorized", "schedule_missed", "process_died", "daemon_silent"} <= alert_rules()
    assert {"UnknownBatch", "RunProcessDied"} <= failures()


HEADER = "| Rule | What it means | What it costs | What to do |\n| --- | --- | --- | --- |\n"
GOOD = "| `a` | means | costs | do |\n"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (HEADER + GOOD, 0),
        (HEADER + GOOD + "\nA sentence.\n" + GOOD, 1),
        (HEADER + "| `a` | means | costs |\n", 1),
        (HEADER + "| `a` | means | | do |\n", 1),
        (HEADER.replace("What it costs", "Costs") + GOOD, 1),
    ],
    ids=["complete", "row outside a table", "missing cell", "empty cell", "renamed column"],
)
def test_table_check_finds_broken_rows(text: str, number: int) -> None:
    assert len(find_table_problems(text)) == number


def test_row_outside_a_table_does_not_count() -> None:
    stray = GOOD.replace("`a`", "`b`")
    assert find_named_rows(HEADER + GOOD + "\nA sentence.\n" + stray, "Rule") == Counter({"a": 1})
