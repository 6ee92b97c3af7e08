"""Fixtures for browser tests: a running `seedtrust-ops dev` and a browser, shared by the tests of one file."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
import yaml
from playwright.sync_api import Browser
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.sandbox.bank.control_client import SandboxBank
from seedtrust_ops_tests.browser.chromium import chromium
from seedtrust_ops_tests.browser.pages import UserInterface, window
from seedtrust_ops_tests.sandbox.dev_process import DevProcess, connect_to_bank, open_databases
from seedtrust_ops_tests.support.dagster_homes import DAGSTER_YAML
from seedtrust_ops_tests.support.tiers import Resource, provides

NEVER_STARTED_JOB = "example_with_args"


@dataclass(frozen=True)
class RunningDev:
    """A running `dev`: its process and its UI's address, and its database, Dagster instance and bank for assertions."""

    process: DevProcess
    address: str
    sessions: "sessionmaker[Session]"
    instance: dg.DagsterInstance
    bank: SandboxBank


@pytest.fixture(scope="module")
@provides(Resource.BROWSER)
def browser() -> Iterator[Browser]:
    """One browser per file: Playwright's event loop must end with it, because other tests run their own loops."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
@provides(Resource.DAEMON)
def dev() -> Iterator[RunningDev]:
    """A `dev` whose queue never starts a run of `NEVER_STARTED_JOB`."""
    settings = yaml.safe_load(DAGSTER_YAML.read_text())
    limits = settings["run_coordinator"]["config"]["tag_concurrency_limits"]
    limits.append({"key": "seedtrust/parallel", "value": NEVER_STARTED_JOB, "limit": 0})
    with tempfile.TemporaryDirectory(prefix="seedtrust-browser-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        # PostgreSQL's own user needs access.
        folder.chmod(0o755)
        process = DevProcess(folder, {"DEV_ENV": "1"}, settings=yaml.safe_dump(settings))
        try:
            with open_databases(process) as (sessions, instance), connect_to_bank(process) as bank:
                yield RunningDev(process, f"http://127.0.0.1:{process.port}", sessions, instance, bank)
        finally:
            process.stop()


@pytest.fixture
def ui(browser: Browser, dev: RunningDev, request: pytest.FixtureRequest) -> Iterator[UserInterface]:
    """A new browser window on the UI."""
    test_name = request.node.name.removeprefix("test_").replace("_", "-")
    with window(browser, dev.address, test_name) as interface:
        yield interface
