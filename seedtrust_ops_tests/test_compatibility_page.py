"""docs/compatibility.md: every incident that was replayed, and all that is refused, names a test that exists."""

import pytest

from seedtrust_ops_tests.test_runbook import parse_tables
from seedtrust_ops_tests.test_security_page import REFERENCE, ROOT, functions_of

TABLES, STRAY_ROWS = parse_tables((ROOT / "docs" / "compatibility.md").read_text())
TESTED_TABLES = [table for table in TABLES if table.header[-1] == "Test"]


def test_no_row_stands_outside_its_table() -> None:
    assert (len(TABLES), len(TESTED_TABLES), STRAY_ROWS) == (3, 2, [])


@pytest.mark.parametrize("row", [row for table in TESTED_TABLES for row in table.rows], ids=lambda row: row[1][:60])
def test_every_row_names_a_test_that_exists(row: tuple[str, ...]) -> None:
    ((file, function),) = REFERENCE.findall(row[-1])
    assert function == "" or function in functions_of(ROOT / file), f"{file}::{function}"
