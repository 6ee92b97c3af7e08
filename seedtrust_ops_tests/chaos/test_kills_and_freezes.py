"""Workers killed while they wait, or frozen until too late; a server that restarts or has no free connection."""

from collections.abc import Callable

import pytest

from seedtrust_ops_tests.chaos.assertions import assert_clean
from seedtrust_ops_tests.chaos.crash_points import kill_during_requests
from seedtrust_ops_tests.chaos.database_faults import limit_connections, restart_during_batch
from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.chaos.frozen_workers import freeze_at_each_step
from seedtrust_ops_tests.chaos.shards import ScenarioResult

# Each test runs many cases, on a machine that may be busy.
pytestmark = [pytest.mark.timeout(900), pytest.mark.long_chaos]


@pytest.mark.parametrize("run", [kill_during_requests, limit_connections, restart_during_batch])
def test_worker_kill_or_server_fault_moves_money_once(
    environment: ChaosEnvironment, run: Callable[[ChaosEnvironment], ScenarioResult]
) -> None:
    assert_clean(run(environment))


def test_frozen_worker_sends_nothing_denied_while_it_was_frozen(environment: ChaosEnvironment) -> None:
    # One step in eight; `make chaos` freezes the worker at each.
    assert_clean(freeze_at_each_step(environment, one_in=8))
