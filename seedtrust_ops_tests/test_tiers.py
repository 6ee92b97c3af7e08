"""The tiers select what they say, a long version names its faster test, and a test in the wrong tier fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from seedtrust_ops_tests.support.tier_plugin import resource_of_command, wrong_tier
from seedtrust_ops_tests.support.tiers import Resource, long_version

TESTS = Path(__file__).parent
PLUGIN = "seedtrust_ops_tests.support.tier_plugin"
SAMPLE_TESTS = """
import subprocess
import sys

import pytest

from seedtrust_ops_tests.support.tiers import Resource, long_version, provides


@pytest.fixture
@provides(Resource.DAEMON)
def daemon():
    subprocess.run([sys.executable, "-c", "pass", "dagster._daemon"], check=True)


@pytest.fixture
def uses_daemon(daemon):
    pass


def test_plain():
    pass


def test_daemon_through_another_fixture(uses_daemon):
    pass


SMALL = "test_tiers.py::test_parts_are_disjoint_and_complete"


@pytest.mark.parametrize("size", [1, pytest.param(2, marks=long_version(of=SMALL))])
def test_size(size):
    pass


@pytest.mark.usefixtures("child_processes")
def test_declared_process():
    subprocess.run([sys.executable, "-c", "pass"], check=True)


def test_undeclared_process():
    subprocess.run([sys.executable, "-c", "pass"], check=True)


@pytest.mark.usefixtures("child_processes")
def test_undeclared_daemon():
    subprocess.run([sys.executable, "-c", "pass", "dagster._daemon"], check=True)


@pytest.mark.usefixtures("daemon_processes")
def test_declared_daemon_that_never_starts():
    pass


@pytest.mark.usefixtures("daemon_processes")
def test_skipped_daemon():
    pytest.skip("not on this machine")
"""
FAST = {"test_plain", "test_size[1]", "test_undeclared_process"}
DEFAULT = FAST | {
    *("test_daemon_through_another_fixture", "test_declared_process"),
    *("test_undeclared_daemon", "test_declared_daemon_that_never_starts"),
}
MISPLACED = {"test_undeclared_process", "test_undeclared_daemon", "test_declared_daemon_that_never_starts"}


def run_pytest(folder: Path, *options: str) -> dict[str, set[str]]:
    """Run pytest on SAMPLE_TESTS; return the names of the tests by their outcome."""
    (folder / "test_samples.py").write_text(SAMPLE_TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "-p", PLUGIN, "-p", "no:cacheprovider", *options, "test_samples.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(TESTS.parent)},
        capture_output=True,
        text=True,
    )
    outcomes: dict[str, set[str]] = {"PASSED": set(), "ERROR": set()}
    for line in done.stdout.splitlines():
        outcome, _, rest = line.partition(" test_samples.py::")
        if outcome in outcomes:
            outcomes[outcome].add(rest.split(" - ")[0])
    assert outcomes["PASSED"], done.stdout + done.stderr
    return outcomes


@pytest.mark.usefixtures("child_processes")
@pytest.mark.parametrize(
    ("tier", "selected", "failed"),
    [("fast", FAST, MISPLACED & FAST), ("default", DEFAULT, MISPLACED), ("slow", {"test_size[2]"}, set())],
)
def test_tier_selects_by_fixtures_and_fails_what_is_misplaced(
    tmp_path: Path, tier: str, selected: set[str], failed: set[str]
) -> None:
    assert run_pytest(tmp_path, f"--tier={tier}") == {"PASSED": selected, "ERROR": failed}


@pytest.mark.usefixtures("child_processes")
def test_parts_are_disjoint_and_complete(tmp_path: Path) -> None:
    parts = [run_pytest(tmp_path, f"--part={number}/2")["PASSED"] for number in (1, 2)]
    assert parts[0] & parts[1] == set()
    assert parts[0] | parts[1] == DEFAULT


@pytest.mark.parametrize(
    ("command", "resource"),
    [
        ("/usr/bin/python -m seedtrust_ops.cli.main dev --port 3000", Resource.DAEMON),
        ("/usr/bin/python -m seedtrust_ops.cli.main alerts", Resource.PROCESS),
        ("/usr/bin/python -m dagster code-server start -m jobs", Resource.DAEMON),
        ("/usr/bin/dagster-webserver --workspace w.yaml", Resource.DAEMON),
        ("/opt/pginstall/bin/pg_ctl -D d start", Resource.DATABASE),
        ("/usr/bin/python -m seedtrust_ops.sandbox.bank --port=0", Resource.BANK),
        ("/opt/playwright/driver/node cli.js run-driver", Resource.BROWSER),
        ("sh -c true", Resource.PROCESS),
    ],
)
def test_command_counts_as_what_it_starts(command: str, resource: Resource) -> None:
    assert resource_of_command(command.split()) == resource


def test_misplaced_test_is_told_the_command_and_the_fixture_to_use() -> None:
    message = wrong_tier(set(), {Resource.PROCESS: "bank --port=0"}, requested=set())
    assert message is not None
    assert "bank --port=0" in message
    assert "child_processes" in message


def test_long_version_of_a_missing_test_is_refused() -> None:
    with pytest.raises(ValueError, match="does not exist"):
        long_version(of="test_tiers.py::test_that_was_renamed")
