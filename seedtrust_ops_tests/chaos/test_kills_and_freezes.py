"""Workers killed while they wait, or frozen until too late; a server that restarts or has no free connection."""

from collections.abc import Callable

import pytest

from seedtrust_ops_tests.chaos.assertions import assert_clean
from seedtrust_ops_tests.chaos.crash_points import kill_during_requests
from seedtrust_ops_tests.chaos.database_faults import limit_connections, restart_during_batch
from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.chaos.frozen_workers import freeze_at_each_step
from seedtrust_ops_tests.chaos.shards import ScenarioResult
from seedtrust_ops_tests.support.tiers import long_version

# Each test runs many cases, on a machine that may be busy.
pytestmark = pytest.mark.timeout(900)


CRASHES = "domain/transfers/test_worker_crashes.py"
FEW_FREEZES = "chaos/test_kills_and_freezes.py::test_frozen_worker_sends_nothing_denied_while_it_was_frozen"


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(kill, marks=long_version(of=f"{CRASHES}::{faster}"))
        for kill, faster in (
            (kill_during_requests, "test_batch_is_paid_once_if_its_worker_is_killed_halfway"),
            (limit_connections, "test_database_connections_dropped_halfway_lose_nothing"),
            (restart_during_batch, "test_database_connections_dropped_halfway_lose_nothing"),
        )
    ],
)
def test_worker_kill_or_server_fault_moves_money_once(
    environment: ChaosEnvironment, run: Callable[[ChaosEnvironment], ScenarioResult]
) -> None:
    assert_clean(run(environment))


@pytest.mark.parametrize("one_in", [20, pytest.param(1, marks=long_version(of=FEW_FREEZES))])
def test_frozen_worker_sends_nothing_denied_while_it_was_frozen(environment: ChaosEnvironment, one_in: int) -> None:
    assert_clean(freeze_at_each_step(environment, one_in=one_in))
