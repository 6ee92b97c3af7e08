"""A daemon for a whole file of tests, because starting one takes longer than what most of them do with it."""

from collections.abc import Iterator

import pytest
from sqlalchemy.engine import URL

from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.launcher.quick_daemon import QuickDaemon, change_settings, quick_daemon
from seedtrust_ops_tests.support.dagster_homes import dagster_home_of_its_own, instance_of


@pytest.fixture(scope="session", autouse=True)
def _of_our_launcher(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--launcher") == "default":
        pytest.skip("these are our launcher's own tests")


@pytest.fixture(scope="module")
def daemon(
    postgres_server: URL, tmp_path_factory: pytest.TempPathFactory, bank_process: BankProcess
) -> Iterator[QuickDaemon]:
    """A daemon with the project's dagster.yaml, but for how often it looks after its runs.

    The session's bank is started before: later it would have this daemon's DAGSTER_HOME, and be ended with it.
    """
    with dagster_home_of_its_own(postgres_server, tmp_path_factory.mktemp("quick") / "home") as home:
        change_settings(home, "poll_interval_seconds: 10", "poll_interval_seconds: 1")
        with instance_of(home) as instance, quick_daemon(home, instance) as daemon:
            yield daemon
