"""A laptop with `seedtrust-ops dev` and a browser, shared by the tests of one file."""

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
from seedtrust_ops_tests.sandbox.laptop import Laptop, bank_of, connected
from seedtrust_ops_tests.support.dagster_homes import DAGSTER_YAML

KEPT_IN_THE_QUEUE = "example_with_args"


@dataclass(frozen=True)
class Office:
    """What a running `dev` consists of, for whoever looks behind the UI."""

    address: str
    sessions: "sessionmaker[Session]"
    instance: dg.DagsterInstance
    bank: SandboxBank


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the file: Playwright's event loop must not outlive it, for other tests run loops of their own."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def office() -> Iterator[Office]:
    """A `dev` whose queue starts no run of `KEPT_IN_THE_QUEUE`."""
    settings = yaml.safe_load(DAGSTER_YAML.read_text())
    limits = settings["run_coordinator"]["config"]["tag_concurrency_limits"]
    limits.append({"key": "seedtrust/parallel", "value": KEPT_IN_THE_QUEUE, "limit": 0})
    with tempfile.TemporaryDirectory(prefix="seedtrust-browser-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        # PostgreSQL's own user must be able to enter.
        folder.chmod(0o755)
        laptop = Laptop(folder, {"DEV_ENV": "1"}, settings=yaml.safe_dump(settings))
        try:
            with connected(laptop) as (sessions, instance), bank_of(laptop) as bank:
                yield Office(f"http://127.0.0.1:{laptop.port}", sessions, instance, bank)
        finally:
            laptop.stop()


@pytest.fixture
def ui(browser: Browser, office: Office, request: pytest.FixtureRequest) -> Iterator[UserInterface]:
    """A fresh window on the UI."""
    scene = request.node.name.removeprefix("test_").replace("_", "-")
    with window(browser, office.address, scene) as interface:
        yield interface
