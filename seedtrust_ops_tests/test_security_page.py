"""Every row of the threat tables in docs/security.md names tests that exist."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import seedtrust_ops

ROOT = Path(seedtrust_ops.__file__).parents[1]
PAGE = ROOT / "docs" / "security.md"
HEADER = "| Threat | Protection | Test |"
REFERENCE = re.compile(r"`(seedtrust_ops_tests/[\w/]+\.py)(?:::(\w+))?`")


def threat_rows() -> Iterator[tuple[str, str]]:
    """Yield (threat, test column) of each row of each threat table."""
    in_table = False
    for line in PAGE.read_text().splitlines():
        if line == HEADER:
            in_table = True
        elif not line.startswith("|"):
            in_table = False
        elif in_table and not line.startswith("| ---"):
            threat, _, tests = line.strip("| ").split(" | ")
            yield threat, tests


def functions_of(path: Path) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, functions)}


def test_every_section_on_threats_has_rows() -> None:
    assert PAGE.read_text().count(HEADER) >= 10
    assert len(list(threat_rows())) >= PAGE.read_text().count(HEADER)


@pytest.mark.parametrize(("threat", "tests"), threat_rows())
def test_every_threat_names_a_test_that_exists(threat: str, tests: str) -> None:
    references = REFERENCE.findall(tests)
    assert references, f"no test for: {threat}"
    for file, function in references:
        assert (ROOT / file).exists(), file
        assert function == "" or function in functions_of(ROOT / file), f"{file}::{function}"
