"""The pytest plugin of the tiers: `--tier` and `--part`, and a guard that fails a test in the wrong tier.

The guard watches which processes a test starts and compares them with what its fixtures declare (`tiers`).
"""

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from seedtrust_ops_tests.support.tiers import DESCRIPTIONS, LONG_VERSION, Resource, provides, used_resources

IN_FAST_TIER = {Resource.DATABASE, Resource.BANK}
POSTGRES_PROGRAMS = {"initdb", "pg_ctl", "postgres", "pg_dump", "pg_restore", "psql"}
DAEMON_WORDS = {
    "code-server",
    "dagster-daemon",
    "dagster-webserver",
    "dagster._daemon",
    "dagster_webserver",
    "seedtrust_ops.launcher.run_host",
    "seedtrust_ops.supervisor.fast_daemon",
}
BANK_MODULE = "seedtrust_ops.sandbox.bank"
DAEMON_COMMANDS = {"demo", "dev", "gameday", "web", "worker"}


def resource_of_command(words: list[str]) -> Resource:
    """Return what a process with this command line counts as."""
    program = os.path.basename(words[0]) if words else ""
    if program in POSTGRES_PROGRAMS:
        return Resource.DATABASE
    if any("playwright" in word or "chromium" in word for word in words):
        return Resource.BROWSER
    if DAEMON_WORDS.intersection((program, *words)) or (
        "seedtrust_ops.cli.main" in words and DAEMON_COMMANDS.intersection(words)
    ):
        return Resource.DAEMON
    return Resource.BANK if BANK_MODULE in words else Resource.PROCESS


class _Guard:
    """Records which processes the running test started; an audit hook can't be removed, so there is one of these."""

    def __init__(self) -> None:
        self.started: dict[Resource, str] | None = None
        self.has_passed = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen" and self.started is not None:
            words = arguments[1]
            words = [words] if isinstance(words, str | bytes | os.PathLike) else list(words)
            words = [os.fsdecode(word) for word in words]
            self.started.setdefault(resource_of_command(words), " ".join(words)[:200])
        elif event == "os.fork" and self.started is not None:
            self.started.setdefault(Resource.PROCESS, "os.fork()")


_guard = _Guard()


@pytest.fixture
@provides(Resource.PROCESS)
def child_processes() -> None:
    """For a test that starts processes of its own, with `pytest.mark.usefixtures`."""


@pytest.fixture
@provides(Resource.DAEMON)
def daemon_processes() -> None:
    """For a test that starts Dagster's servers or our own worker itself, with `pytest.mark.usefixtures`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--tier` and `--part`."""
    parser.addoption(
        "--tier",
        choices=["fast", "default", "slow"],
        default="default",
        help="fast: no server but PostgreSQL and the bank; default: every promise once; slow: long versions",
    )
    parser.addoption("--part", metavar="K/N", help="run only the Kth of N equal parts of the selected tests")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks and install the guard."""
    for resource in Resource:
        config.addinivalue_line("markers", f"{resource}: {DESCRIPTIONS[resource]} (set by its fixtures)")
    config.addinivalue_line("markers", f"{LONG_VERSION}(of): the long version of the faster test `of`; slow tier only")
    sys.addaudithook(_guard)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test with what it uses, select the tier, and let the files with the most expensive tests begin first.

    At the end of a run only short tests are then left, so that no worker of xdist waits for another.
    """
    for item in items:
        for resource in used_resources(item):
            item.add_marker(str(resource))
    tier = config.getoption("--tier")
    selected = [item for item in items if _belongs(item, tier)]
    if part := config.getoption("--part"):
        number, parts = (int(word) for word in part.split("/"))
        selected = selected[number % parts :: parts]
    kept = set(selected)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    costs: dict[Any, int] = {}
    for item in selected:
        costs[item.path] = max(costs.get(item.path, 0), _cost(item))
    items[:] = sorted(selected, key=lambda item: -costs[item.path])


def _belongs(item: pytest.Item, tier: str) -> bool:
    is_long = item.get_closest_marker(LONG_VERSION) is not None
    if tier == "fast":
        return not is_long and used_resources(item) <= IN_FAST_TIER
    return is_long == (tier == "slow")


def _cost(item: pytest.Item) -> int:
    order = list(Resource)
    return max((1 + order.index(resource) for resource in used_resources(item)), default=0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Watch the processes that the test and its fixtures start."""
    _guard.started, _guard.has_passed = {}, False
    try:
        return (yield)
    finally:
        _guard.started = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Remember that the test ran to its end: one that is skipped starts nothing."""
    result = yield
    _guard.has_passed = True
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Fail a test that is in the wrong tier. What its fixtures start in order to stop a server does not count."""
    started = dict(_guard.started or {})
    result = yield
    requested = set(getattr(item, "fixturenames", ())) if _guard.has_passed else set()
    complaint = wrong_tier(used_resources(item), started, requested=requested)
    if complaint:
        pytest.fail(complaint, pytrace=False)
    return result


def wrong_tier(declared: set[Resource], started: dict[Resource, str], *, requested: set[str]) -> str | None:
    """Return why a test is in the wrong tier, or None.

    A fixture that declares a resource also covers the cheaper ones: a test of a daemon may start commands.

    Args:
        declared: what its fixtures declare.
        started: a command line for each kind of process that it started.
        requested: the names of its fixtures; empty if it was skipped or failed.
    """
    order = list(Resource)
    highest = max((order.index(resource) for resource in declared), default=-1)
    for resource, command in started.items():
        if order.index(resource) > highest:
            fixture = "daemon_processes" if resource is Resource.DAEMON else "child_processes"
            return (
                f"This test started a process that counts as {resource}, but none of its fixtures declares that: "
                f"{command}. Use the fixture {fixture}, or declare it on the fixture that starts the process "
                "(support/tiers.py)."
            )
    if "daemon_processes" in requested and Resource.DAEMON not in started:
        return (
            "This test uses the fixture daemon_processes and starts no daemon, so the fast tier misses it for nothing."
        )
    return None
