"""One daemon per test file, because starting a daemon takes longer than most of the tests that use it."""

from collections.abc import Iterator

import pytest
from sqlalchemy.engine import URL

from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.launcher.quick_daemon import QuickDaemon, change_settings, quick_daemon, use_quick_jobs
from seedtrust_ops_tests.support.dagster_homes import open_instance, temporary_dagster_home
from seedtrust_ops_tests.support.tiers import Resource, provides


@pytest.fixture(scope="session", autouse=True)
def _warm_launcher_only(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--launcher") == "default":
        pytest.skip("These tests cover the warm run launcher.")


@pytest.fixture(scope="module")
@provides(Resource.DAEMON)
def daemon(
    postgres_server: URL, tmp_path_factory: pytest.TempPathFactory, bank_process: BankProcess
) -> Iterator[QuickDaemon]:
    """A daemon with the project's dagster.yaml, except that it monitors its runs more often.

    The session's bank is started first: later it would inherit this daemon's DAGSTER_HOME and be stopped with it.
    """
    with temporary_dagster_home(postgres_server, tmp_path_factory.mktemp("quick") / "home") as home:
        use_quick_jobs(home)
        change_settings(home, "poll_interval_seconds: 10", "poll_interval_seconds: 1")
        with open_instance(home) as instance, quick_daemon(home, instance) as daemon:
            yield daemon
