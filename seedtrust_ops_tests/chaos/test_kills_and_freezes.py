"""Workers killed while they wait, or frozen and woken late; a server that restarts or has no connection left."""

from collections.abc import Callable

import pytest

from seedtrust_ops_tests.chaos.crash_points import killed_while_waiting
from seedtrust_ops_tests.chaos.database_faults import restarts_in_mid_batch, too_few_connections
from seedtrust_ops_tests.chaos.environment import Ground
from seedtrust_ops_tests.chaos.expectations import must_be_clean
from seedtrust_ops_tests.chaos.frozen_workers import frozen_at_each_step
from seedtrust_ops_tests.chaos.shards import Group

# Many cases a test, on a machine that may be busy.
pytestmark = [pytest.mark.timeout(900), pytest.mark.long_chaos]


@pytest.mark.parametrize("run", [killed_while_waiting, too_few_connections, restarts_in_mid_batch])
def test_money_moves_once_and_books_agree_whatever_befalls_worker_or_server(
    ground: Ground, run: Callable[[Ground], Group]
) -> None:
    must_be_clean(run(ground))


def test_worker_that_wakes_up_late_at_any_step_sends_nothing_that_was_denied_meanwhile(ground: Ground) -> None:
    # One step in so many; `make chaos` freezes it at each.
    must_be_clean(frozen_at_each_step(ground, one_in=8))
