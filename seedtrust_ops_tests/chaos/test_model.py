"""Random histories of everything that can happen to transfers: the invariants hold after every step.

The same histories every time; `python -m seedtrust_ops_tests.chaos.model --steps N --seed S` runs others.
"""

import itertools

import pytest

from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.chaos.model.history import EVENTS
from seedtrust_ops_tests.chaos.model.runner import STEPS, run_histories
from seedtrust_ops_tests.chaos.model.state_machine import BANK_FAULTS, Coverage
from seedtrust_ops_tests.support.tiers import long_version

SEED = 7
STEPS_PER_SEED = 250
"""Enough, from this seed, for nearly every event and fault; another seed's steps are added until none is missing."""
MUST_HAVE_EFFECT = (
    "worker, with nothing",
    "worker, with crash",
    "worker, with freeze",
    "worker, with terminate",
    "auto-heal, with nothing",
    "auto-heal, with crash",
    "auto-heal, with freeze",
    "two workers start at once",
    "a batch is launched by hand",
    "the queue is processed",
    "all frozen workers resume",
)


def _missing(coverage: Coverage) -> list[str]:
    """Return what has not happened: a history in which nothing happens violates no invariant either."""
    labels = ("{}", "worker, with {}", "auto-heal, with {}")
    return [
        *(name for name in MUST_HAVE_EFFECT if not coverage.had_effect[name]),
        *(kind for kind in BANK_FAULTS if not coverage.ran[f"the bank fails: {kind}"]),
        *(name for name in EVENTS if not any(coverage.ran[label.format(name)] for label in labels)),
    ]


@pytest.mark.timeout(1_200)
def test_random_history_of_every_event_violates_no_invariant(environment: ChaosEnvironment) -> None:
    coverage = Coverage()
    for seed in itertools.count(SEED):
        run_histories(environment, steps=STEPS_PER_SEED, from_seed=seed, coverage=coverage)
        if not _missing(coverage) or coverage.steps >= STEPS:
            break
    assert _missing(coverage) == []


@long_version(of="chaos/test_model.py::test_random_history_of_every_event_violates_no_invariant")
@pytest.mark.timeout(1_200)
def test_random_history_violates_no_invariant_in_2000_steps(environment: ChaosEnvironment) -> None:
    coverage = run_histories(environment, steps=STEPS)

    assert coverage.steps >= STEPS
    assert _missing(coverage) == []
