"""Random histories of everything that can happen to transfers: the invariants hold after every step.

The same steps every time; `python -m seedtrust_ops_tests.chaos.model --steps N --seed S` runs others.
"""

import pytest

from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.chaos.model.history import EVENTS
from seedtrust_ops_tests.chaos.model.runner import STEPS, run_histories
from seedtrust_ops_tests.chaos.model.state_machine import BANK_FAULTS
from seedtrust_ops_tests.support.tiers import long_version

FEWEST_STEPS = 400
"""So few that every event, every bank fault, and every kind of process still happens at least once."""
SHORT_HISTORY = "chaos/test_model.py::test_random_history_violates_no_invariant"
MUST_HAVE_EFFECT = (
    "worker, with nothing",
    "worker, with crash",
    "worker, with freeze",
    "auto-heal, with nothing",
    "auto-heal, with crash",
    "auto-heal, with freeze",
    "two workers start at once",
    "a batch is launched by hand",
    "the queue is processed",
    "all frozen workers resume",
)


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("steps", [FEWEST_STEPS, pytest.param(STEPS, marks=long_version(of=SHORT_HISTORY))])
def test_random_history_violates_no_invariant(environment: ChaosEnvironment, steps: int) -> None:
    coverage = run_histories(environment, steps=steps)

    assert coverage.steps >= steps
    # A history in which nothing happens violates no invariant either.
    assert [name for name in MUST_HAVE_EFFECT if not coverage.had_effect[name]] == []
    assert [kind for kind in BANK_FAULTS if not coverage.ran[f"the bank fails: {kind}"]] == []
    labels = ("{}", "worker, with {}", "auto-heal, with {}")
    assert [name for name in EVENTS if not any(coverage.ran[label.format(name)] for label in labels)] == []
