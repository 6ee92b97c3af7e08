"""docs/compatibility.md and docs/faults.md: every fault and incident there names tests that exist."""

import pytest

from seedtrust_ops_tests.test_runbook import parse_tables
from seedtrust_ops_tests.test_security_page import REFERENCE, ROOT, functions_of

PARSED = [parse_tables((ROOT / "docs" / page).read_text()) for page in ("compatibility.md", "faults.md")]
TESTED_TABLES = [table for tables, _ in PARSED for table in tables if table.header[-1] == "Test"]


def test_no_row_stands_outside_its_table() -> None:
    assert (len(TESTED_TABLES), [stray for _, stray in PARSED]) == (5, [[], []])


@pytest.mark.parametrize("row", [row for table in TESTED_TABLES for row in table.rows], ids=lambda row: row[1][:60])
def test_every_row_names_tests_that_exist(row: tuple[str, ...]) -> None:
    references = REFERENCE.findall(row[-1])
    assert references, f"no test for: {row[0]}"
    for file, function in references:
        assert function == "" or function in functions_of(ROOT / file), f"{file}::{function}"
