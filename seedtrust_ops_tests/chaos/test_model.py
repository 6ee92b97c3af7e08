"""Random histories of everything that can happen to transfers: every promise holds after every step of them.

The same 2,000 steps every time; `python -m seedtrust_ops_tests.chaos.model --steps N --seed S` runs others.
"""

import pytest

from seedtrust_ops_tests.chaos.environment import Ground
from seedtrust_ops_tests.chaos.model.history import HAPPENINGS
from seedtrust_ops_tests.chaos.model.runner import STEPS, run_histories
from seedtrust_ops_tests.chaos.model.state_machine import FAULTS

BY_THEMSELVES = (
    "befalls a worker: nothing",
    "befalls a worker: death",
    "befalls a worker: frost",
    "befalls a healer: nothing",
    "befalls a healer: death",
    "befalls a healer: frost",
    "two workers start at once",
    "a batch is launched by hand",
    "the queue is worked off",
    "all who are frozen go on",
)


@pytest.mark.takes_minutes
@pytest.mark.timeout(1_200)
def test_every_promise_holds_after_every_step_of_2000_and_once_all_is_quiet(ground: Ground) -> None:
    coverage = run_histories(ground, steps=STEPS)

    assert coverage.steps >= STEPS
    # A history in which nothing happens holds every promise too.
    assert [name for name in BY_THEMSELVES if not coverage.came_of_it[name]] == []
    assert [kind for kind in FAULTS if not coverage.ran[f"the bank fails: {kind}"]] == []
    ways = ("{}", "befalls a worker: {}", "befalls a healer: {}")
    assert [what for what in HAPPENINGS if not any(coverage.ran[way.format(what)] for way in ways)] == []
