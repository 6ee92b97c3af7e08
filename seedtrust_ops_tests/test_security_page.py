"""Every row of the threat tables in docs/security.md names tests that exist, and no row stands outside its table."""

import ast
import re
from pathlib import Path

import pytest

import seedtrust_ops
from seedtrust_ops_tests.test_runbook import parse_tables

ROOT = Path(seedtrust_ops.__file__).parents[1]
TABLES, STRAY_ROWS = parse_tables((ROOT / "docs" / "security.md").read_text())
THREAT_TABLES = [table for table in TABLES if table.header == ("Threat", "Protection", "Test")]
AREAS = 11
REFERENCE = re.compile(r"`(seedtrust_ops_tests/[\w/]+\.py)(?:::(\w+))?`")


def functions_of(path: Path) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, functions)}


def test_every_area_has_its_threats_in_a_table() -> None:
    assert (len(THREAT_TABLES), STRAY_ROWS) == (AREAS, [])


@pytest.mark.parametrize("row", [row for table in THREAT_TABLES for row in table.rows], ids=lambda row: row[0][:60])
def test_every_threat_names_a_test_that_exists(row: tuple[str, ...]) -> None:
    threat, _, tests = row
    references = REFERENCE.findall(tests)
    assert references, f"no test for: {threat}"
    for file, function in references:
        assert (ROOT / file).exists(), file
        assert function == "" or function in functions_of(ROOT / file), f"{file}::{function}"
