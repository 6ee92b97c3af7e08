"""docs/notifications.md holds to the code: who is notified of each event, by which email or alert, and within how long.

Kinds of email and alert rules are read from the code, as in test_runbook, so a new one without a row fails here.
"""

import ast
import re
from collections import Counter

import pytest

from seedtrust_ops.cli.notifications import import_email_kinds
from seedtrust_ops.config import Settings
from seedtrust_ops.config.settings_base import SettingsGroup
from seedtrust_ops.domain.notifications.kind_registry import KINDS
from seedtrust_ops.severity import Severity
from seedtrust_ops_tests.test_runbook import (
    PACKAGE,
    Table,
    _calls,
    _modules,
    _string_constants,
    alert_rules,
    parse_tables,
)

PAGE = PACKAGE.parent / "docs" / "notifications.md"
TESTS = PACKAGE.parent / "seedtrust_ops_tests"
COLUMNS = {
    "Email": ("Event", "Email", "Who", "Within", "If they are not there", "Test"),
    "Rule": ("Event", "Rule", "Severity", "Within", "If it is not seen", "Test"),
}
ARGUMENTS = {"open_alert": (1, 3), "Finding": (0, 2), "Incident": (0, 2)}
"""The positions of the rule and the severity in a call of each; those of test_runbook, and the watchdog's."""
AS_THE_JOB = "as the job"
"""In the column of severities: the code takes it from the job that the alert is about."""


def tables() -> dict[str, Table]:
    """Return the page's tables by their second column."""
    found, strays = parse_tables(PAGE.read_text())
    assert strays == []
    return {table.header[1]: table for table in found}


def rows() -> list[tuple[str, ...]]:
    return [row for table in tables().values() for row in table.rows]


def severities() -> dict[str, set[str]]:
    """Return the severities that the code gives alerts of each rule; AS_THE_JOB for what it computes."""
    everywhere: dict[str, set[str]] = {}
    for module in _modules():
        for name, value in _string_constants(module).items():
            everywhere.setdefault(name, set()).add(value)
    found: dict[str, set[str]] = {}
    for module in _modules():
        own = _string_constants(module)
        for function, (position, severity) in ARGUMENTS.items():
            for call in _calls(module, function):
                rule = call.args[position]
                names = {str(rule.value)} if isinstance(rule, ast.Constant) else set()
                if isinstance(rule, ast.Name):
                    names = {own[rule.id]} if rule.id in own else everywhere[rule.id]
                for name in names:
                    found.setdefault(name, set()).update(_severities_of(call.args[severity]))
    return found


def _severities_of(argument: ast.expr) -> set[str]:
    match argument:
        case ast.Constant(value=str(name)) | ast.Attribute(attr=name) if name in Severity.__members__:
            return {name}
        case ast.IfExp(body=body, orelse=orelse):
            return _severities_of(body) | _severities_of(orelse)
    return {AS_THE_JOB}


def limits() -> dict[str, float]:
    """Return the default of every setting that is a number of seconds, by its variable."""
    settings = Settings({})
    groups: list[SettingsGroup] = [settings.alert_thresholds, settings.watchdog, settings.transfers]
    stuck = settings.alert_thresholds.stuck_after(settings.transfers.unknown_grace_seconds)
    return {
        str(field.validation_alias): getattr(group, name)
        for group in groups
        for name, field in type(group).model_fields.items()
        if isinstance(getattr(group, name), int | float)
    } | {
        "SEEDTRUST_HEALTH_BATCH_STUCK_SECONDS": stuck.batch_seconds,
        "SEEDTRUST_HEALTH_TRANSACTIONS_STUCK_SECONDS": stuck.transaction_seconds,
    }


def test_tables_have_their_columns_and_no_empty_cell() -> None:
    assert {second: table.header for second, table in tables().items()} == COLUMNS
    assert [row for row in rows() if len(row) != 6 or not all(row)] == []


def test_every_kind_of_email_has_one_row() -> None:
    import_email_kinds()
    assert Counter(row[1].strip("`") for row in tables()["Email"].rows) == Counter(list(KINDS))


def test_every_alert_rule_has_one_row() -> None:
    assert Counter(row[1].strip("`") for row in tables()["Rule"].rows) == Counter(alert_rules())


@pytest.mark.parametrize("row", tables()["Rule"].rows, ids=lambda row: row[1].strip("`"))
def test_severity_is_that_of_the_code(row: tuple[str, ...]) -> None:
    rule = row[1].strip("`")
    assert set(row[2].split(", ")) == severities()[rule]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[1].strip("`"))
def test_limit_is_that_of_the_settings(row: tuple[str, ...]) -> None:
    for variable, seconds in re.findall(r"`([A-Z_]+)` \((\d+) s\)", row[3]):
        assert limits()[variable] == float(seconds)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[1].strip("`"))
def test_test_that_shows_it_exists(row: tuple[str, ...]) -> None:
    path, _, name = row[5].strip("`").partition("::")
    functions = {node.name for node in ast.parse((TESTS / path).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert name in functions
